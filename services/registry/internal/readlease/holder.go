package readlease

import (
	"sync"
	"sync/atomic"
	"time"
)

// Holder keeps the lease that a follower got from its leader. Safe for concurrent use.
type Holder struct {
	Clock
	held atomic.Pointer[held]

	mu sync.Mutex
	// recalledTerm and recalled name the last lease that was taken back. One that was on its way
	// meanwhile is void.
	recalledTerm, recalled uint64
}

type held struct {
	term, number uint64
	index        uint64
	until        time.Duration
}

// NewHolder returns a holder without a lease.
func NewHolder(clock Clock) *Holder { return &Holder{Clock: clock} }

// Index returns the index that the follower's state must have reached to answer default reads;
// false without a lease. Every write acknowledged before the call is at or below it.
func (h *Holder) Index() (uint64, bool) {
	l := h.held.Load()
	if l == nil || h.Elapsed() >= l.until {
		return 0, false
	}
	return l.index, true
}

// Take takes a lease that was asked for when the clock showed asked, with the leader's index of
// that time. A lease that was taken back already, or is none, is ignored.
func (h *Holder) Take(lease Lease, index uint64, asked time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if lease.Lasts <= 0 || h.recalledTerm > lease.Term || h.recalledTerm == lease.Term && h.recalled >= lease.Number {
		return
	}
	h.held.Store(&held{term: lease.Term, number: lease.Number, index: index, until: asked + lease.Lasts - lease.Lasts/margin})
}

// Recall gives back the lease of a number, and all before it.
func (h *Holder) Recall(term, number uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if term > h.recalledTerm || term == h.recalledTerm && number > h.recalled {
		h.recalledTerm, h.recalled = term, number
	}
	if l := h.held.Load(); l != nil && (l.term < term || l.term == term && l.number <= number) {
		h.held.Store(nil)
	}
}
