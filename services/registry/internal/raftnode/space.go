package raftnode

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"konsul.dev/services/registry/internal/steps"
)

// The Raft library counts entries, and an entry may be a few bytes or a mebibyte. What follows
// keeps the log's size in bytes within bounds: it takes a snapshot when enough has been written
// since the last one, and keeps only as many entries behind it as are worth the room.

// leastTrailing entries stay behind a snapshot however large they are.
const leastTrailing = 64

// written counts what goes into the log.
type written struct {
	entries, bytes atomic.Uint64
	// due is how many bytes make the next snapshot worth while; grown receives when they are there.
	due   atomic.Uint64
	grown chan struct{}
}

func (w *written) add(logs []*raft.Log) {
	size := 0
	for _, log := range logs {
		size += len(log.Data)
	}
	w.entries.Add(uint64(len(logs)))
	if w.bytes.Add(uint64(size)) < w.due.Load() { //nolint:gosec // a sum of lengths
		return
	}
	select {
	case w.grown <- struct{}{}:
	default:
	}
}

// StoreLog counts and stores an entry.
func (l *logStore) StoreLog(log *raft.Log) error { return l.StoreLogs([]*raft.Log{log}) }

// StoreLogs counts and stores entries.
func (l *logStore) StoreLogs(logs []*raft.Log) error {
	l.written.add(logs)
	if len(logs) > 0 {
		if err := l.leap(logs[0].Index); err != nil {
			return err
		}
	}
	l.step.At(steps.Appending)
	if err := l.parallel.write(logs, l.WAL.StoreLogs); err != nil {
		return err
	}
	l.step.At(steps.Appended)
	return nil
}

// limitSpace takes snapshots by size until ctx ends.
func (n *Node) limitSpace(ctx context.Context) error {
	w := &n.logs.written
	var entries, bytes uint64
	for {
		w.due.Store(bytes + n.config.SnapshotBytes)
		select {
		case <-ctx.Done():
			return nil
		case <-w.grown:
		}
		entriesNow, bytesNow := w.entries.Load(), w.bytes.Load()
		if bytesNow < w.due.Load() {
			continue
		}
		if err := n.compact((bytesNow - bytes) / max(1, entriesNow-entries)); err != nil {
			n.log.Warn("could not shorten the log; trying again when it has grown once more", "error", err)
		}
		entries, bytes = entriesNow, bytesNow
	}
}

// compact takes a snapshot and keeps as many entries of an average size behind it as are worth the
// room.
func (n *Node) compact(average uint64) error {
	current := n.raft.ReloadableConfig()
	current.TrailingLogs = trailing(average, n.config)
	if err := n.raft.ReloadConfig(current); err != nil {
		return fmt.Errorf("set trailing logs: %w", err)
	}
	if err := n.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return fmt.Errorf("take a snapshot: %w", err)
	}
	return nil
}

// trailing returns how many entries of an average size stay behind a snapshot.
func trailing(average uint64, c Config) uint64 {
	return min(c.TrailingLogs, max(leastTrailing, c.TrailingBytes/max(1, average)))
}
