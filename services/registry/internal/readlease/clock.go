package readlease

import "time"

// margin is the part of a lease that is not used: the rates of two clocks may differ by a
// sixteenth.
const margin = 16

// Clock measures time on one server. It advances while the process is stopped, and changes of the
// wall clock do not move it.
type Clock interface {
	// Elapsed returns the time since a moment of the clock's own.
	Elapsed() time.Duration
	// After returns a channel that receives once d has passed.
	After(d time.Duration) <-chan time.Time
}

// Monotonic returns the operating system's monotonic clock.
func Monotonic() Clock { return monotonic{time.Now()} }

// monotonic measures from a time with a monotonic reading, so time.Since does not look at the wall
// clock.
type monotonic struct{ start time.Time }

func (m monotonic) Elapsed() time.Duration { return time.Since(m.start) }

func (monotonic) After(d time.Duration) <-chan time.Time { return time.After(d) }
