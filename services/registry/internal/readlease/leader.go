package readlease

import (
	"sync/atomic"
	"time"
)

// Leader is the leader lease of one server. Safe for concurrent use.
type Leader struct {
	Clock
	lasts   time.Duration
	granted atomic.Pointer[granted]
	// released is the last term whose lease was given up.
	released atomic.Uint64
}

type granted struct {
	term  uint64
	until time.Duration
}

// NewLeader returns a leader lease. lasts is for how long a leader is to rely on a majority that
// heard from it, heartbeat how long that majority elects nobody else.
func NewLeader(clock Clock, lasts, heartbeat time.Duration) *Leader {
	return &Leader{Clock: clock, lasts: min(lasts, heartbeat-heartbeat/margin)}
}

// Renew notes that a majority heard from the leader of a term after began.
func (l *Leader) Renew(term uint64, began time.Duration) {
	l.granted.Store(&granted{term: term, until: began + l.lasts})
}

// Release gives up the lease of a term for good: its leader makes another server the leader, and
// that one waits for no lease.
func (l *Leader) Release(term uint64) { l.released.Store(term) }

// Left returns how long the lease of a term lasts from now, zero if it is over.
func (l *Leader) Left(term uint64) time.Duration {
	g := l.granted.Load()
	if g == nil || g.term != term || l.released.Load() == term {
		return 0
	}
	return max(0, g.until-l.Elapsed())
}
