package raftnode

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// brisk is how soon after each other entries are when the leader waits for the next one, which tells the followers
// as well. After a last write that long may pass until they hear of it.
const brisk = 5 * time.Millisecond

// herald tells followers of the last commit when no entry follows it. The Raft library leaves that to its next
// message, tens of milliseconds later, and all that while watchers there do not hear of a write that its
// writer knows to be done.
//
// What it sends is an AppendEntries without entries, such as the library itself sends: sender and term are a leader
// and its term, and the entry it names is of that term and committed. A follower that lacks the entry, or
// knows a later term, refuses it; nobody minds.
type herald struct {
	committed atomic.Pointer[position]
	// before is when the entry before was applied; only the goroutine that applies entries uses it.
	before time.Time
	// patience is how long to wait for another entry, in nanoseconds.
	patience atomic.Int64
	wake     chan struct{}
}

type position struct{ index, term uint64 }

func newHerald() *herald { return &herald{wake: make(chan struct{}, 1)} }

// applied notes an entry that was committed.
func (h *herald) applied(index, term uint64) {
	now := time.Now()
	patience := 2 * now.Sub(h.before)
	if patience >= 2*brisk {
		patience = 0
	}
	h.before = now
	h.patience.Store(int64(min(patience, brisk)))
	h.committed.Store(&position{index, term})
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// last answers the last entry that was committed, when none has followed for as long as one may be expected; nil
// when ctx ends.
func (h *herald) last(ctx context.Context) *position {
	for p := h.committed.Load(); ; {
		if wait := time.Duration(h.patience.Load()); wait > 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(wait):
			}
		}
		now := h.committed.Load()
		if now == p {
			return p
		}
		p = now
	}
}

// proclaim runs while this server leads.
func (n *Node) proclaim(ctx context.Context) error {
	peers := map[raft.ServerID]*follower{}
	var told *position
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.herald.wake:
		}
		p := n.herald.last(ctx)
		if p == nil || p == told || n.raft.LastIndex() > p.index || n.raft.CurrentTerm() != p.term || n.raft.State() != raft.Leader {
			continue
		}
		told = p
		for _, s := range n.raft.GetConfiguration().Configuration().Servers {
			if string(s.ID) == n.config.ID {
				continue
			}
			if peers[s.ID] == nil {
				peers[s.ID] = &follower{}
			}
			peers[s.ID].tell(n, s, p)
		}
	}
}

// follower is told one thing at a time: one that does not answer hears of the last one when it does.
type follower struct {
	mu   sync.Mutex
	next *position
	busy bool
}

func (f *follower) tell(n *Node, s raft.Server, p *position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = p
	if f.busy {
		return
	}
	f.busy = true
	go func() {
		for p := f.take(); p != nil; p = f.take() {
			// One that is still writing the entry would not take the word for it.
			n.early.settled(s.ID)
			request := &raft.AppendEntriesRequest{
				RPCHeader: n.early.header(), Term: p.term,
				PrevLogEntry: p.index, PrevLogTerm: p.term, LeaderCommitIndex: p.index,
			}
			// Should it fail, the library's own message comes later.
			_ = n.early.AppendEntries(s.ID, s.Address, request, &raft.AppendEntriesResponse{})
		}
	}()
}

// take answers what is to be told; nil if nothing is, and then nobody does.
func (f *follower) take() *position {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.next
	f.next = nil
	f.busy = p != nil
	return p
}
