package konsulfx

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// gcPercent is at most how much a service allocates, in per cent of what is alive, before garbage is collected. Measured in a registry
	// under load, 60 instead of Go's 100 costs 1 to 2 % of the processor time and saves a fifth of the memory.
	gcPercent = 60
	// leastGCPercent is the least.
	leastGCPercent = 20
	// usualGarbage is how much may be allocated whatever is alive, as far as gcPercent lets it.
	usualGarbage = 16 << 20
	// gcPace is how often that is looked at. It costs some microseconds.
	gcPace = 500 * time.Millisecond
)

// SetGC sets how often garbage is collected, unless the environment's GOGC does: Main calls it. A collection costs what it
// has to look through, and in a registry most of what is alive are buffers without pointers, such as those in which Badger builds tables. So garbage may
// be as much as there is to look through, but for a usual amount, and not in proportion to all that is alive, as it is to Go.
func SetGC() {
	if os.Getenv("GOGC") != "" {
		return
	}
	go func() {
		for percent := 0; ; time.Sleep(gcPace) {
			percent = paceGC(percent)
		}
	}()
}

// paceGC sets the percentage that fits what is alive, if it is not the given one, and answers it.
func paceGC(now int) int {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/heap:bytes"}}
	metrics.Read(samples)
	next := percentFor(samples[0].Value.Uint64(), samples[1].Value.Uint64())
	if next == now {
		return now
	}
	debug.SetGCPercent(next)
	return next
}

// percentFor answers how much may be allocated in per cent of what is alive, so much of which a collection looks through.
func percentFor(live, scanned uint64) int {
	percent := max(usualGarbage, scanned) * 100 / max(live, 1)
	return int(min(gcPercent, max(leastGCPercent, percent))) //nolint:gosec // a percentage
}
