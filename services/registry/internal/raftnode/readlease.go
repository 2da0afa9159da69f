package raftnode

import (
	"context"
	"sync"
	"time"
)

// readRest is how long nothing was written before read leases are given: under a stream of writes, taking them back
// each time would cost more than the questions they save.
const readRest = 20 * time.Millisecond

// ReadLease lets another server answer default reads by itself: until it ends, or that server has given it back, this
// leader changes nothing. The zero value is none.
//
// It is the lease of Moraru, Andersen and Kaminsky, "Paxos Quorum Leases: Fast Reads Without Sacrificing Writes" (SoCC
// 2014), for the whole state, and taken back before a write begins rather than by the write.
type ReadLease struct {
	Term uint64
	// Number orders the leases of a term.
	Number uint64
	// Lasts is counted by the holder from before it asked: it ends there before it does here, if clocks advance at a
	// like rate.
	Lasts time.Duration
}

// Recall takes a read lease back from a server. When it answers nil, the server reads under it no more, and will
// not take it should it still be on its way.
type Recall func(ctx context.Context, server string, lease ReadLease) error

// readLeases are those that this server gave. Safe for concurrent use.
type readLeases struct {
	recall  Recall
	metrics *Metrics
	// recalling is held while leases are taken back: whoever writes waits until all are.
	recalling sync.Mutex

	mu sync.Mutex
	// writes counts what may change the state now; nothing is given meanwhile.
	writes int
	// rested is from when on leases are given again.
	rested time.Time
	number uint64
	given  map[string]givenLease
}

type givenLease struct {
	ReadLease
	until time.Time
}

func newReadLeases(recall Recall, metrics *Metrics) *readLeases {
	return &readLeases{recall: recall, metrics: metrics, given: map[string]givenLease{}}
}

// LeaseReads answers a read lease for a server, none if it may have none now. Whoever gets one may read what this
// server has published when this answers, and what its own state holds beyond.
func (n *Node) LeaseReads(ctx context.Context, server string) (ReadLease, error) {
	if n.config.ReadLease == 0 || n.reads.recall == nil || !n.reads.resting(time.Now()) {
		return ReadLease{}, nil
	}
	if g := n.granted.Load(); g == nil || g.term != n.readyTerm.Load() || time.Until(g.until) < n.config.ReadLease {
		if err := n.VerifyLeader(ctx); err != nil {
			return ReadLease{}, err
		}
	}
	return n.reads.give(server, n.leasable), nil
}

// leasable answers in which term, and how long, no other server can be elected.
func (n *Node) leasable(now time.Time) (uint64, time.Duration) {
	g, term := n.granted.Load(), n.readyTerm.Load()
	if g == nil || g.term != term || n.handingOver.Load() == term || !n.IsLeader() {
		return 0, 0
	}
	return term, min(n.config.ReadLease, g.until.Sub(now))
}

// resting says whether a lease may be given now.
func (r *readLeases) resting(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.writes == 0 && !now.Before(r.rested)
}

func (r *readLeases) give(server string, leasable func(now time.Time) (uint64, time.Duration)) ReadLease {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.writes > 0 || now.Before(r.rested) {
		return ReadLease{}
	}
	term, lasts := leasable(now)
	if lasts <= 0 {
		return ReadLease{}
	}
	r.number++
	lease := ReadLease{Term: term, Number: r.number, Lasts: lasts}
	r.given[server] = givenLease{lease, now.Add(lasts)}
	r.metrics.readLeases.WithLabelValues("given").Inc()
	return lease
}

// pause takes all leases back and keeps new ones from being given until resume is called. It waits for a
// server that does not answer until its lease has ended.
func (r *readLeases) pause() (resume func()) {
	r.mu.Lock()
	r.writes++
	r.mu.Unlock()
	r.recalling.Lock()
	defer r.recalling.Unlock()
	var recalls sync.WaitGroup
	for server, lease := range r.taken() {
		recalls.Go(func() { r.takeFrom(server, lease) })
	}
	recalls.Wait()
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.writes--
		r.rested = time.Now().Add(readRest)
	}
}

// taken answers the leases that must be taken back, and forgets them.
func (r *readLeases) taken() map[string]givenLease {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.given) == 0 {
		return nil
	}
	taken := r.given
	r.given = map[string]givenLease{}
	return taken
}

func (r *readLeases) takeFrom(server string, lease givenLease) {
	ctx, cancel := context.WithDeadline(context.Background(), lease.until)
	defer cancel()
	if ctx.Err() != nil {
		return
	}
	if err := r.recall(ctx, server, lease.ReadLease); err != nil {
		<-ctx.Done()
		r.metrics.readLeases.WithLabelValues("outlasted").Inc()
		return
	}
	r.metrics.readLeases.WithLabelValues("recalled").Inc()
}
