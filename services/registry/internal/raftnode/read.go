package raftnode

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"konsul.dev/pkg/coalesce"
	"konsul.dev/services/registry/internal/member"
	"konsul.dev/services/registry/internal/readlease"
)

// IsLeader reports whether this server believes that it leads and its state holds everything that
// was acknowledged in earlier terms. It asks nobody: another leader may have been elected since,
// unless this one holds its lease (EnsureLease) or a majority says so (VerifyLeader).
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

// VerifyLeader returns nil once a majority has confirmed, after the call, that this server leads. A
// read of the state is then linearizable whatever the clocks do: every write acknowledged before
// the call was applied here before it was acknowledged. Concurrent callers share a round.
func (n *Node) VerifyLeader(ctx context.Context) error {
	if err := n.CheckLeader(); err != nil {
		return err
	}
	_, err := n.verify.Join(ctx, func() (struct{}, error) {
		began, term := n.leaderLease.Elapsed(), n.raft.CurrentTerm()
		if !n.confirmed(term) {
			return struct{}{}, n.noLeader()
		}
		n.leaderLease.Renew(term, began)
		return struct{}{}, nil
	})
	if err != nil {
		return err
	}
	return n.CheckLeader()
}

// confirmed reports whether a majority of the voters answers heartbeats of a term that are sent
// now. The library's VerifyLeader counts answers to messages sent before the call as well: a leader
// that was paused may find such an answer when another server leads already.
//
// It runs once at a time, as a round of n.verify.
func (n *Node) confirmed(term uint64) bool {
	// A leader that hears from no majority for that long steps down.
	ctx, cancel := context.WithTimeout(n.group.Context(), n.config.Timing.Heartbeat)
	defer cancel()
	voters, votes, asked := 0, 0, 0
	servers := n.Servers()
	answers := make(chan bool, len(servers))
	for _, s := range servers {
		switch {
		case !s.Voter:
			continue
		case s.ID == n.config.ID:
			votes++
		default:
			asked++
			round := n.heartbeatsTo(s.ID)
			go func() {
				confirmed, err := round.Join(ctx, func() (uint64, error) { return n.heartbeat(s.ID) })
				answers <- err == nil && confirmed == term
			}()
		}
		voters++
	}
	for ; asked > 0 && votes <= voters/2; asked-- {
		if <-answers {
			votes++
		}
	}
	return votes > voters/2
}

// heartbeatsTo returns the heartbeats to a server: one is in flight at a time, so that a server
// that does not answer holds up one connection and not one for each round.
func (n *Node) heartbeatsTo(id string) *coalesce.Rounds[uint64] {
	if n.heartbeats[id] == nil {
		n.heartbeats[id] = &coalesce.Rounds[uint64]{}
	}
	return n.heartbeats[id]
}

// heartbeat returns the term in which a server follows this one, by its answer to a message that is
// sent now; zero if it does not.
func (n *Node) heartbeat(id string) (uint64, error) {
	for _, s := range n.Servers() {
		if s.ID != id {
			continue
		}
		term, response := n.raft.CurrentTerm(), &raft.AppendEntriesResponse{}
		err := n.parallel.AppendEntries(raft.ServerID(id), raft.ServerAddress(s.Address),
			&raft.AppendEntriesRequest{RPCHeader: n.parallel.header(), Term: term}, response)
		if err != nil || !response.Success || response.Term != term {
			return 0, err
		}
		return term, nil
	}
	return 0, nil
}

// EnsureLease returns nil when this server holds the leader lease: no other server can have been
// elected yet, as long as clocks advance at a like rate. A lease that is over is renewed by
// VerifyLeader. The Raft library does not tell a paused leader at once that it was paused, so the
// lease is counted here.
func (n *Node) EnsureLease(ctx context.Context) error {
	if err := n.CheckLeader(); err != nil {
		return err
	}
	if n.leaderLease.Left(n.readyTerm.Load()) > 0 {
		return nil
	}
	return n.VerifyLeader(ctx)
}

// ReadIndex lets a follower answer reads: with mode linearizable once, else under the lease, if one
// is returned. Whatever was acknowledged before the call was published here before ReadIndex
// returns. If the returned term is not zero, the follower must find itself at that term afterwards.
func (n *Node) ReadIndex(ctx context.Context, follower string, linearizable, wantsLease bool) (term uint64, lease readlease.Lease, err error) {
	if err := n.CheckLeader(); err != nil {
		return 0, lease, err
	}
	if wantsLease && !linearizable {
		if lease, err = n.readLease(ctx, follower); err != nil || lease.Lasts > 0 {
			return 0, lease, err
		}
	}
	switch {
	case n.majorityWith(follower):
		// A server at a term has given no vote in a later one. When the follower finds itself at
		// the leader's term after the leader has, nobody else can have been elected before either
		// of them looked.
		term = n.raft.CurrentTerm()
		err = n.CheckLeader()
	case linearizable:
		err = n.VerifyLeader(ctx)
	default:
		err = n.EnsureLease(ctx)
	}
	return term, lease, err
}

// readLease returns a read lease for a follower, none if it may have none now.
func (n *Node) readLease(ctx context.Context, follower string) (readlease.Lease, error) {
	lasts := n.lessor.Lasts()
	if lasts == 0 {
		return readlease.Lease{}, nil
	}
	if n.leaderLease.Left(n.readyTerm.Load()) < lasts {
		if err := n.VerifyLeader(ctx); err != nil {
			return readlease.Lease{}, err
		}
	}
	return n.lessor.Give(follower, func() (uint64, time.Duration) {
		term := n.readyTerm.Load()
		if !n.IsLeader() {
			return 0, 0
		}
		return term, n.leaderLease.Left(term)
	}), nil
}

// Term is the latest term this server knows of: it has given no vote in a later one.
func (n *Node) Term() uint64 { return n.raft.CurrentTerm() }

// majorityWith reports whether this server and another are a majority of the voters by themselves.
func (n *Node) majorityWith(server string) bool {
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

// Freshness returns up to when this server's state is known to be that of its leader, and whether
// it knows a leader.
func (n *Node) Freshness(now time.Time) (time.Time, bool) {
	if n.IsLeader() {
		return now, true
	}
	return n.raft.LastContact(), n.LeaderID() != ""
}

// Status is where this server stands.
type Status = member.Status

// Status returns where this server stands.
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

// Servers returns the voters and non-voters of the cluster.
func (n *Node) Servers() []Server {
	var out []Server
	for _, s := range n.raft.GetConfiguration().Configuration().Servers {
		out = append(out, Server{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return out
}

// Snapshot takes a snapshot now and truncates the log, for tests and operators.
func (n *Node) Snapshot() error { return n.raft.Snapshot().Error() }
