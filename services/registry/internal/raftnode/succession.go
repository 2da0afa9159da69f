package raftnode

import (
	"context"
	"time"

	"github.com/hashicorp/raft"
)

// The Raft library looks after a follower's leader at random moments: one that goes silent is noticed after one to
// three heartbeat timeouts. That is as it should be for a leader that is slow. One whose process died closes its
// connections, and then a follower here has the library look the moment the timeout is over. The followers do so one
// after the other, in the order of their ids, so that two of them hardly ever split the votes.
//
// The timeout itself stands: a leader that lost its connections and lives still has its lease.

// stagger is which part of a heartbeat timeout lies between one follower and the next: more than an election takes.
const stagger = 5

// succeed follows the connections from peers until ctx ends.
func (n *Node) succeed(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.network.broken:
		}
		broken := time.Now()
		for n.silentSince(broken) {
			last := n.raft.LastContact()
			if last.IsZero() {
				last = broken
			}
			timeout := n.config.Timing.Heartbeat
			left := timeout + time.Duration(n.rank())*timeout/stagger - time.Since(last)
			if left <= 0 {
				n.look()
				break
			}
			timer := time.NewTimer(left)
			select {
			case <-ctx.Done():
				timer.Stop()
				return nil
			case <-timer.C:
			}
		}
	}
}

// silentSince says that a follower has not heard from a leader since then.
func (n *Node) silentSince(then time.Time) bool {
	return n.raft.State() == raft.Follower && !n.raft.LastContact().After(then)
}

// rank answers how many followers are to try before this one.
func (n *Node) rank() int {
	leader, before := n.LeaderID(), 0
	for _, s := range n.Servers() {
		if s.Voter && s.ID != leader && s.ID < n.config.ID {
			before++
		}
	}
	return before
}

// look makes a follower check now whether its leader is silent for too long. The library does so when its
// timeout is made shorter.
func (n *Node) look() {
	n.reload.Lock()
	defer n.reload.Unlock()
	current := n.raft.ReloadableConfig()
	current.HeartbeatTimeout = n.config.Timing.Heartbeat - time.Microsecond
	err := n.raft.ReloadConfig(current)
	if err == nil {
		current.HeartbeatTimeout = n.config.Timing.Heartbeat
		err = n.raft.ReloadConfig(current)
	}
	if err != nil {
		n.log.Warn("could not look for the leader", "error", err)
	}
}
