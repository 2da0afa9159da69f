package raftnode

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// quiet is how long no entry has been committed before followers are told of the last commit. Under
// a stream of writes the next entry tells them.
const quiet = 2 * time.Millisecond

// commits tells followers the commit index when no entry follows that would: the commit-index
// broadcast that etcd's raft has built in. The Raft library leaves it to a message 50 to 100 ms
// later (CommitTimeout), and until then watchers and readers at a follower do not see a write that
// its writer knows to be done.
//
// A broadcast is an AppendEntries without entries, as the library sends itself. One that is lost
// does no harm.
type commits struct {
	mu   sync.Mutex
	last entryID
	// busy are followers that have not answered yet. They are left to the library.
	busy map[raft.ServerID]bool
	// applied receives when an entry was committed and applied.
	applied chan struct{}
}

func newCommits() *commits {
	return &commits{busy: map[raft.ServerID]bool{}, applied: make(chan struct{}, 1)}
}

// note notes the last entry that was committed. It does not block.
func (c *commits) note(index, term uint64) {
	c.mu.Lock()
	c.last = entryID{index, term}
	c.mu.Unlock()
	select {
	case c.applied <- struct{}{}:
	default:
	}
}

// broadcastCommits runs while this server leads.
func (n *Node) broadcastCommits(ctx context.Context) error {
	timer := time.NewTimer(quiet)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.commits.applied:
			timer.Reset(quiet)
		case <-timer.C:
			n.broadcastCommit()
		}
	}
}

func (n *Node) broadcastCommit() {
	c := n.commits
	c.mu.Lock()
	defer c.mu.Unlock()
	if n.raft.LastIndex() > c.last.index || n.raft.CurrentTerm() != c.last.term || n.raft.State() != raft.Leader {
		return
	}
	request := &raft.AppendEntriesRequest{
		RPCHeader: n.parallel.header(), Term: c.last.term,
		PrevLogEntry: c.last.index, PrevLogTerm: c.last.term, LeaderCommitIndex: c.last.index,
	}
	for _, s := range n.raft.GetConfiguration().Configuration().Servers {
		if string(s.ID) == n.config.ID || c.busy[s.ID] {
			continue
		}
		c.busy[s.ID] = true
		go func() {
			// If it fails, the library's own message comes later.
			_ = n.parallel.AppendEntries(s.ID, s.Address, request, &raft.AppendEntriesResponse{})
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.busy, s.ID)
		}()
	}
}
