package raftnode

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"

	"konsul.dev/pkg/fault"
)

// installTimeout bounds the wait for the Raft loop to begin a restore, and then for a majority to
// have it.
const installTimeout = 10 * time.Minute

// ReasonIndexTaken says that the log has grown past the index meant for a restored state.
const ReasonIndexTaken = "INDEX_TAKEN"

// LastIndex is the highest index this server's log has given out.
func (n *Node) LastIndex() uint64 { return n.raft.LastIndex() }

// Install replaces the state of the cluster by a snapshot whose header says index, which must lie
// well above LastIndex, and returns when a majority has it. Leader only. Until then this server
// answers for nobody: a state that a majority does not have might be lost again. When the outcome
// is not known it may have happened.
func (n *Node) Install(index uint64, size int64, snapshot io.Reader) error {
	if err := n.CheckLeader(); err != nil {
		return err
	}
	if n.raft.LastIndex() >= index-1 {
		return fault.New(fault.Aborted, ReasonIndexTaken, "the log has reached index %d, the restore was to be at %d", n.raft.LastIndex(), index).WithRemedy("try again")
	}
	term := n.readyTerm.Swap(0)
	if term == 0 {
		return n.noLeader()
	}
	defer n.lessor.Pause()()
	// The library takes the index after the one it is told.
	meta := &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: index - 1, Size: size}
	err := n.raft.Restore(meta, snapshot, installTimeout)
	installed := n.raft.LastIndex() >= index
	if err == nil || !installed || n.raft.Barrier(barrierTimeout).Error() == nil {
		// All of it or nothing of it; another term has been made ready by itself.
		n.readyTerm.CompareAndSwap(0, term)
	}
	switch {
	case err == nil:
		return nil
	case !installed && errors.Is(err, raft.ErrNotLeader):
		return n.noLeader().Wrap(err)
	case !installed:
		return fault.New(fault.Unavailable, fault.ReasonNoLeader, "the state could not be replaced: %v", err).WithRemedy("nothing was changed; try again").Wrap(err)
	}
	return fmt.Errorf("install a snapshot: %w", unknown(err))
}
