package forward

import (
	"sync"
	"sync/atomic"
	"time"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// readLeases keeps the leader's word that it changes nothing for a while: until then default reads need not ask. Safe
// for concurrent use.
type readLeases struct {
	held atomic.Pointer[readLease]

	mu sync.Mutex
	// recalled is the last lease that was taken back, in recalledTerm: one that was on its way meanwhile is void.
	recalledTerm, recalled uint64
}

type readLease struct {
	term, number uint64
	// index is up to where this server's state must reach.
	index uint64
	until time.Time
}

// index answers the index up to which the state is the leader's; false without a lease. A read whose lease ends after
// that has seen at least what was acknowledged before the end.
func (l *readLeases) index() (uint64, bool) {
	held := l.held.Load()
	if held == nil || !time.Now().Before(held.until) {
		return 0, false
	}
	return held.index, true
}

// take takes a lease that was asked for at a time.
func (l *readLeases) take(lease *registryv1.ReadLease, index uint64, asked time.Time) {
	if lease == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.recalledTerm > lease.GetTerm() || l.recalledTerm == lease.GetTerm() && l.recalled >= lease.GetNumber() {
		return
	}
	lasts := lease.GetLasts().AsDuration()
	l.held.Store(&readLease{term: lease.GetTerm(), number: lease.GetNumber(), index: index, until: asked.Add(lasts - lasts/leaseMargin)})
}

// leaseMargin is the part of a lease that is not used: clocks advance at a like rate, not at the same one.
const leaseMargin = 16

// recall gives a lease back, and all before it.
func (l *readLeases) recall(term, number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if term > l.recalledTerm || term == l.recalledTerm && number > l.recalled {
		l.recalledTerm, l.recalled = term, number
	}
	if held := l.held.Load(); held != nil && (held.term < term || held.term == term && held.number <= number) {
		l.held.Store(nil)
	}
}

// RecallReadLease gives back what the leader of a term let this server read under, up to the lease of a number.
func (r *Router) RecallReadLease(term, number uint64) { r.reading.recall(term, number) }
