package raftnode

import (
	"context"
	"time"

	"github.com/hashicorp/raft"
)

// IsLeader reports whether this server believes that it leads and its state holds everything that was
// acknowledged in earlier terms. It asks nobody: another leader may have been elected since, unless this
// one holds its lease (EnsureLease) or a majority says so (VerifyLeader).
func (n *Node) IsLeader() bool {
	term := n.readyTerm.Load()
	return term != 0 && n.raft.State() == raft.Leader && n.raft.CurrentTerm() == term
}

// CheckLeader returns a NO_LEADER fault unless IsLeader. It asks nobody.
func (n *Node) CheckLeader() error {
	if n.IsLeader() {
		return nil
	}
	return n.noLeader()
}

// VerifyLeader returns nil once a majority has confirmed, after the call, that this server leads. A read of
// the state is then linearizable whatever the clocks do: every write acknowledged before the call was
// applied here before it was acknowledged. Concurrent callers share a round.
func (n *Node) VerifyLeader(ctx context.Context) error {
	if err := n.CheckLeader(); err != nil {
		return err
	}
	_, err := n.verify.Join(ctx, func() (struct{}, error) {
		began, term := time.Now(), n.raft.CurrentTerm()
		if err := n.raft.VerifyLeader().Error(); err != nil {
			return struct{}{}, n.noLeader().Wrap(err)
		}
		n.granted.Store(&grant{term: term, until: began.Add(n.config.Timing.Lease)})
		return struct{}{}, nil
	})
	if err != nil {
		return err
	}
	return n.CheckLeader()
}

// grant is a term's lease: a majority heard of this leader after it began, and elects nobody else before it ends.
type grant struct {
	term  uint64
	until time.Time
}

// EnsureLease returns nil when this server holds the leader lease: no other server can have been elected
// yet, as long as clocks advance at a like rate (Ongaro, "Consensus: Bridging Theory and Practice", 6.4.1).
// A lease that is over is renewed by VerifyLeader. The Raft library does not tell a paused leader at once
// that it was paused, so the lease is counted here. A leader that hands over holds none: its successor does
// not wait for it.
func (n *Node) EnsureLease(ctx context.Context) error {
	if err := n.CheckLeader(); err != nil {
		return err
	}
	term := n.readyTerm.Load()
	if g := n.granted.Load(); g != nil && g.term == term && n.handingOver.Load() != term && time.Now().Before(g.until) {
		return nil
	}
	return n.VerifyLeader(ctx)
}

// Term is the latest term this server knows of: it has given no vote in a later one.
func (n *Node) Term() uint64 { return n.raft.CurrentTerm() }

// MajorityWith says whether this server and another are a majority of the voters by themselves.
func (n *Node) MajorityWith(server string) bool {
	voters, both := 0, 0
	for _, s := range n.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if s.ID == raft.ServerID(server) || s.ID == raft.ServerID(n.config.ID) {
			both++
		}
	}
	return both > voters/2
}

// LeaderID is the leader's id as far as this server knows; empty when it knows none.
func (n *Node) LeaderID() string {
	_, id := n.raft.LeaderWithID()
	return string(id)
}

// Freshness answers up to when this server's state is known to be that of its leader, and whether it
// knows a leader.
func (n *Node) Freshness(now time.Time) (time.Time, bool) {
	if n.IsLeader() {
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
	LastTerm    uint64
	CommitIndex uint64
}

// Status answers where this server stands.
func (n *Node) Status() Status {
	s := Status{Term: n.raft.CurrentTerm(), LastIndex: n.raft.LastIndex(), CommitIndex: n.raft.CommitIndex(), LastTerm: lastTerm(n.raft)}
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
		out = append(out, Server{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return out
}

// Snapshot takes a snapshot now and truncates the log, for tests and operators.
func (n *Node) Snapshot() error { return n.raft.Snapshot().Error() }
