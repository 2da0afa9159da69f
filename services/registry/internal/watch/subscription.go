package watch

import (
	"cmp"
	"sync"
	"time"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Delta is what changed: the last version of each row, in the order of their modify indexes. It is
// shared by all subscriptions that were equally far: nobody may change it.
type Delta struct {
	Rows []*registryv1.Record
	// Index is up to where that is everything.
	Index uint64

	mu     sync.Mutex
	made   any
	madeAt time.Time
}

// Share returns what produce made for the first one who got this delta, or makes it anew when that
// is older than a while.
func Share[T any](d *Delta, now time.Time, while time.Duration, produce func() T) T {
	d.mu.Lock()
	defer d.mu.Unlock()
	if made, ok := d.made.(T); ok && now.Sub(d.madeAt) <= while {
		return made
	}
	made := produce()
	d.made, d.madeAt = made, now
	return made
}

// Subscription is somebody's interest in some rows. It is for one goroutine.
type Subscription struct {
	hub      *Hub
	collects bool
	wake     chan struct{}

	// Guarded by hub.mu.
	groups []*group
	// taken is the index up to which everything was taken.
	taken  uint64
	resets uint64
}

// Wake receives after something happened since the last Take.
func (s *Subscription) Wake() <-chan struct{} { return s.wake }

// Take returns the rows that changed since the last Take or Skip. False means that rows were lost:
// read the state anew and subscribe again.
func (s *Subscription) Take() (*Delta, bool) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if s.resets != s.hub.resets {
		return nil, false
	}
	index := s.hub.index.Load()
	var one [1]*Delta
	deltas := one[:0]
	for _, g := range s.groups {
		d, known := g.since(s.taken)
		if !known {
			return nil, false
		}
		if d != nil {
			deltas = append(deltas, d)
		}
	}
	s.taken = max(s.taken, index)
	if s.collects {
		for _, g := range s.groups {
			g.catchUp(s)
		}
	}
	return merge(deltas, index), true
}

// Skip says that changes up to and including an index are known already.
func (s *Subscription) Skip(index uint64) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.taken = max(s.taken, index)
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	for _, g := range s.groups {
		g.leave(s)
		if len(g.subs) > 0 {
			continue
		}
		g.forget(0)
		t := s.hub.tables[g.filter.Table]
		t.drop(g.filter)
		if len(t.exact) == 0 && len(t.prefix) == 0 {
			delete(s.hub.tables, g.filter.Table)
		}
	}
	s.groups = nil
}

func (s *Subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func compareRows(a, b *registryv1.Record) int {
	return cmp.Or(cmp.Compare(a.GetModifyIndex(), b.GetModifyIndex()), cmp.Compare(a.GetTable(), b.GetTable()), cmp.Compare(a.GetKey(), b.GetKey()))
}
