package raftnode

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	"konsul.dev/pkg/fault"
)

// membershipTimeout bounds the wait for the Raft loop to take a change of membership.
const membershipTimeout = 2 * time.Second

// Fresh reports whether this server had no Raft state when it started, and has none yet. A fresh
// server is silent to its peers until Open.
func (n *Node) Fresh() bool { return n.fresh && n.raft.LastIndex() == 0 && n.raft.CurrentTerm() == 0 }

// Open lets peers in from now on.
func (n *Node) Open() { n.network.admitting.Store(true) }

// Found bootstraps a new cluster of these servers. It is an error on a server with state.
func (n *Node) Found(servers []Server) error {
	var first raft.Configuration
	for _, s := range servers {
		first.Servers = append(first.Servers, raft.Server{ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Address)})
	}
	if err := n.raft.BootstrapCluster(first).Error(); err != nil {
		return fmt.Errorf("bootstrap raft: %w", err)
	}
	// There is no leader to wait for, nor one whose lease this could break.
	err := n.parallel.TimeoutNow(n.parallel.self.ID, n.parallel.self.Address, &raft.TimeoutNowRequest{RPCHeader: n.parallel.header()}, &raft.TimeoutNowResponse{})
	if err != nil {
		n.log.Warn("the first election begins later: this server does not reach itself", "address", n.config.Advertise, "error", err)
	}
	return nil
}

// Disk returns whose data this server runs on.
func (n *Node) Disk() Disk { return *n.disk.Load() }

// SetGeneration remembers how often the cluster was recovered.
func (n *Node) SetGeneration(generation uint64) error {
	d := n.Disk()
	if d.Generation == generation {
		return nil
	}
	d.Generation = generation
	if err := writeDisk(n.config.Dir, d); err != nil {
		return err
	}
	n.disk.Store(&d)
	return nil
}

// Add makes a server a member without a vote, or gives a member a new address. Its vote stays as it
// is.
func (n *Node) Add(ctx context.Context, id, address string) error {
	for _, s := range n.Servers() {
		if s.ID == id && s.Voter {
			return n.change(ctx, func() raft.IndexFuture {
				return n.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(address), 0, membershipTimeout)
			})
		}
	}
	return n.change(ctx, func() raft.IndexFuture {
		return n.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(address), 0, membershipTimeout)
	})
}

// Remove takes a server out of the cluster.
func (n *Node) Remove(ctx context.Context, id string) error {
	return n.change(ctx, func() raft.IndexFuture { return n.raft.RemoveServer(raft.ServerID(id), 0, membershipTimeout) })
}

// change carries out a change of membership. Doing it twice is as good as once, so all that it
// takes after a failure is to try again.
func (n *Node) change(ctx context.Context, begin func() raft.IndexFuture) error {
	if err := n.CheckLeader(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- begin().Error() }()
	select {
	case err := <-done:
		switch {
		case err == nil:
			return nil
		case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrLeadershipTransferInProgress):
			return n.noLeader().Wrap(err)
		}
		return fmt.Errorf("change the membership: %w", err)
	case <-ctx.Done():
		return unknown(context.Cause(ctx))
	case <-n.group.Context().Done():
		return n.noLeader().Wrap(errShutdown)
	}
}

// ReasonNoSuccessor says that no other voter can take the leadership over.
const ReasonNoSuccessor = "NO_SUCCESSOR"

// Transfer makes another server the leader, the voter that is furthest if id is empty, and returns
// once this one leads no more.
func (n *Node) Transfer(ctx context.Context, id string) error {
	if n.raft.State() != raft.Leader {
		return n.noLeader()
	}
	n.leaderLease.Release(n.raft.CurrentTerm())
	defer n.lessor.Pause()()
	begin := func() raft.Future { return n.raft.LeadershipTransfer() }
	if id != "" {
		target := Server{}
		for _, s := range n.Servers() {
			if s.ID == id {
				target = s
			}
		}
		switch {
		case target.ID == "":
			return fault.New(fault.NotFound, ReasonUnknownServer, "there is no server %q in this cluster", id).WithField("id")
		case !target.Voter:
			return fault.New(fault.FailedPrecondition, ReasonNoSuccessor, "%s has no vote", id).WithField("id").
				WithRemedy("name a voter, or none")
		}
		begin = func() raft.Future {
			return n.raft.LeadershipTransferToServer(raft.ServerID(id), raft.ServerAddress(target.Address))
		}
	}
	done := make(chan error, 1)
	go func() { done <- begin().Error() }()
	select {
	case err := <-done:
		if err != nil {
			return fault.New(fault.FailedPrecondition, ReasonNoSuccessor, "no other server took the leadership over: %v", err).
				WithRemedy("see `konsulctl operator autopilot state` for a healthy voter").Wrap(err)
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-n.group.Context().Done():
		return n.noLeader()
	}
}

// ReasonUnknownServer says that no member of the cluster has that id.
const ReasonUnknownServer = "UNKNOWN_SERVER"

// lastTerm is the term of the last log entry; the library tells it as text only.
func lastTerm(r *raft.Raft) uint64 {
	term, _ := strconv.ParseUint(r.Stats()["last_log_term"], 10, 64)
	return term
}

var errShutdown = errors.New("raft is shut down")
