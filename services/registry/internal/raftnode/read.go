package raftnode

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Leads says whether this server leads and its state holds everything acknowledged before: under
// the leader's lease a read of the state is then up to date.
func (n *Node) Leads() bool {
	term := n.readyTerm.Load()
	return term != 0 && n.raft.State() == raft.Leader && n.raft.CurrentTerm() == term
}

// CheckLease answers a NO_LEADER fault unless Leads.
func (n *Node) CheckLease() error {
	if n.Leads() {
		return nil
	}
	return n.noLeader()
}

// VerifyLease answers once a majority confirmed, after the call, that this server leads; a read of
// the state is then linearizable whatever the clocks do: every write acknowledged before the call was
// applied here before it was acknowledged. Concurrent callers share a round.
func (n *Node) VerifyLease(ctx context.Context) error {
	if err := n.CheckLease(); err != nil {
		return err
	}
	round := n.verify.join(func() error { return n.raft.VerifyLeader().Error() })
	select {
	case <-round.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-n.done:
		return n.noLeader()
	}
	if round.err != nil {
		return n.noLeader().Wrap(round.err)
	}
	return n.CheckLease()
}

// rounds lets callers share quorum rounds. A caller is served by a round that starts after it came.
type rounds struct {
	mu      sync.Mutex
	running bool
	next    *round
}

type round struct {
	done chan struct{}
	err  error
}

func (r *rounds) join(confirm func() error) *round {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == nil {
		r.next = &round{done: make(chan struct{})}
	}
	mine := r.next
	if !r.running {
		r.running = true
		go r.run(confirm)
	}
	return mine
}

func (r *rounds) run(confirm func() error) {
	for {
		r.mu.Lock()
		current := r.next
		r.next = nil
		if current == nil {
			r.running = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		current.err = confirm()
		close(current.done)
	}
}

// LeaderID is the leader's id as far as this server knows; empty when it knows none.
func (n *Node) LeaderID() string {
	_, id := n.raft.LeaderWithID()
	return string(id)
}

// Freshness answers up to when this server's state is known to be that of its leader, and whether it
// knows a leader.
func (n *Node) Freshness(now time.Time) (time.Time, bool) {
	if n.Leads() {
		return now, true
	}
	return n.raft.LastContact(), n.LeaderID() != ""
}

// Status is where this server stands.
type Status struct {
	State       string
	Voter       bool
	Term        uint64
	LastIndex   uint64
	CommitIndex uint64
}

// Status answers where this server stands.
func (n *Node) Status() Status {
	s := Status{Term: n.raft.CurrentTerm(), LastIndex: n.raft.LastIndex(), CommitIndex: n.raft.CommitIndex()}
	switch n.raft.State() {
	case raft.Leader:
		s.State = "leader"
	case raft.Candidate:
		s.State = "candidate"
	case raft.Follower:
		s.State = "follower"
	case raft.Shutdown:
		s.State = "shutdown"
	}
	for _, server := range n.raft.GetConfiguration().Configuration().Servers {
		s.Voter = s.Voter || server.ID == raft.ServerID(n.config.ID) && server.Suffrage == raft.Voter
	}
	return s
}

// Servers answers the voters and non-voters of the cluster.
func (n *Node) Servers() []Server {
	var out []Server
	for _, s := range n.raft.GetConfiguration().Configuration().Servers {
		out = append(out, Server{ID: string(s.ID), Address: string(s.Address)})
	}
	return out
}

// Snapshot takes a snapshot now and truncates the log, for tests and operators.
func (n *Node) Snapshot() error { return n.raft.Snapshot().Error() }
