package proxy

import (
	"sync"
	"time"

	"konsul.dev/pkg/clock"
)

// maxEjected bounds what is remembered.
const maxEjected = 10_000

// ejection keeps targets that failed out of use for a while, so that a caller pays for a dead one
// once and not with every request until its health check notices. Safe for concurrent use.
type ejection struct {
	clock clock.Clock
	keep  time.Duration

	mu    sync.Mutex
	until map[string]time.Time
}

func newEjection(clk clock.Clock, keep time.Duration) *ejection {
	return &ejection{clock: clk, keep: keep, until: map[string]time.Time{}}
}

// eject returns false when the target was out of use already.
func (e *ejection) eject(target string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.clock.Now()
	if len(e.until) >= maxEjected {
		clear(e.until)
	}
	already := e.until[target].After(now)
	e.until[target] = now.Add(e.keep)
	return !already
}

func (e *ejection) out(target string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	until, known := e.until[target]
	if known && !until.After(e.clock.Now()) {
		delete(e.until, target)
		return false
	}
	return known
}
