package readlease

import (
	"context"
	"sync"
	"time"
)

// rest is how long nothing was written before leases are given. Under a stream of writes, taking
// them back each time would cost more than the questions they save.
const rest = 20 * time.Millisecond

// Lease lets a follower answer default reads by itself. The zero value is none.
type Lease struct {
	Term uint64
	// Number orders the leases of a term.
	Number uint64
	// Lasts is counted by the holder from before it asked, so it ends there before it ends here.
	Lasts time.Duration
}

// Recall takes a lease back from a server. When it returns nil, the server reads under it no more,
// and does not accept it should it still be on its way.
type Recall func(ctx context.Context, server string, lease Lease) error

// Event is what happens to a lease, as metrics count it.
type Event string

// Events of leases.
const (
	// Given says that a follower got a lease.
	Given Event = "given"
	// Recalled says that a follower gave a lease back before a write.
	Recalled Event = "recalled"
	// Outlasted says that a write waited for the end of a lease whose holder did not answer.
	Outlasted Event = "outlasted"
)

// Lessor gives leases to followers, and takes them back before the state changes. Safe for
// concurrent use.
type Lessor struct {
	clock  Clock
	lasts  time.Duration
	recall Recall
	count  func(Event)
	// recalling is held while leases are taken back: every writer waits until all are. It is locked
	// before mu.
	recalling sync.Mutex

	mu sync.Mutex
	// writes counts what may change the state now. No lease is given meanwhile.
	writes int
	// rested is when leases are given again.
	rested time.Duration
	number uint64
	given  map[string]given
}

type given struct {
	Lease
	until time.Duration
}

// NewLessor returns a lessor whose leases last so long; zero or a nil recall: it gives none.
func NewLessor(clock Clock, lasts time.Duration, recall Recall, count func(Event)) *Lessor {
	if recall == nil {
		lasts = 0
	}
	return &Lessor{clock: clock, lasts: lasts, recall: recall, count: count, given: map[string]given{}}
}

// Lasts returns how long a lease lasts if it may be given now, zero if none may.
func (l *Lessor) Lasts() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.available()
}

func (l *Lessor) available() time.Duration {
	if l.writes > 0 || l.clock.Elapsed() < l.rested {
		return 0
	}
	return l.lasts
}

// Give returns a lease for a server, none if none may be given now. leader returns the term that
// this server leads and how long no other one can be elected, zero if it cannot tell.
func (l *Lessor) Give(server string, leader func() (term uint64, left time.Duration)) Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Elapsed()
	term, left := leader()
	lasts := min(l.available(), left)
	if lasts <= 0 {
		return Lease{}
	}
	l.number++
	lease := Lease{Term: term, Number: l.number, Lasts: lasts}
	l.given[server] = given{lease, now + lasts}
	l.count(Given)
	return lease
}

// Pause takes all leases back and lets none be given until resume is called. It waits for a server
// that does not answer until its lease has ended.
func (l *Lessor) Pause() (resume func()) {
	l.mu.Lock()
	l.writes++
	l.mu.Unlock()
	l.recalling.Lock()
	defer l.recalling.Unlock()
	var recalls sync.WaitGroup
	for server, lease := range l.takeGiven() {
		recalls.Go(func() { l.takeBack(server, lease) })
	}
	recalls.Wait()
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.writes--
		l.rested = l.clock.Elapsed() + rest
	}
}

// takeGiven returns the leases that must be taken back, and forgets them.
func (l *Lessor) takeGiven() map[string]given {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.given) == 0 {
		return nil
	}
	taken := l.given
	l.given = map[string]given{}
	return taken
}

func (l *Lessor) takeBack(server string, lease given) {
	left := lease.until - l.clock.Elapsed()
	if left <= 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), left)
	defer cancel()
	if l.recall(ctx, server, lease.Lease) == nil {
		l.count(Recalled)
		return
	}
	<-l.clock.After(lease.until - l.clock.Elapsed())
	l.count(Outlasted)
}
