package raftnode

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// quiet is how long the leader waits for another entry, which would tell the followers as well.
const quiet = 2 * time.Millisecond

// herald tells followers of the last commit when no entry follows it. The Raft library leaves that to its next
// message, tens of milliseconds later, and all that while watchers there do not hear of a write that its
// writer knows to be done.
//
// What it sends is an AppendEntries without entries, such as the library itself sends: sender and term are a leader
// and its term, and the entry it names is of that term and committed. A follower that lacks the entry, or
// knows a later term, refuses it; nobody minds.
type herald struct {
	committed atomic.Pointer[position]
	wake      chan struct{}
}

type position struct{ index, term uint64 }

func newHerald() *herald { return &herald{wake: make(chan struct{}, 1)} }

// applied notes an entry that was committed.
func (h *herald) applied(index, term uint64) {
	h.committed.Store(&position{index, term})
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// proclaim runs while this server leads.
func (n *Node) proclaim(ctx context.Context) error {
	told := map[raft.ServerID]*follower{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.herald.wake:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(quiet):
		}
		p := n.herald.committed.Load()
		if n.raft.LastIndex() > p.index || n.raft.CurrentTerm() != p.term || n.raft.State() != raft.Leader {
			continue
		}
		for _, s := range n.raft.GetConfiguration().Configuration().Servers {
			if string(s.ID) == n.config.ID {
				continue
			}
			if told[s.ID] == nil {
				told[s.ID] = &follower{}
			}
			told[s.ID].tell(n, s, *p)
		}
	}
}

// follower is told one thing at a time: one that does not answer is not asked again meanwhile.
type follower struct{ busy atomic.Bool }

func (f *follower) tell(n *Node, s raft.Server, p position) {
	if !f.busy.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer f.busy.Store(false)
		own := n.transport.EncodePeer(raft.ServerID(n.config.ID), raft.ServerAddress(n.config.Advertise))
		request := &raft.AppendEntriesRequest{
			RPCHeader:    raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.config.ID), Addr: own},
			Term:         p.term,
			PrevLogEntry: p.index, PrevLogTerm: p.term, LeaderCommitIndex: p.index,
		}
		// Should it fail, the library's own message comes later.
		_ = n.transport.AppendEntries(s.ID, s.Address, request, &raft.AppendEntriesResponse{})
	}()
}
