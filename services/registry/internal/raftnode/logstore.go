package raftnode

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"

	"konsul.dev/services/registry/internal/steps"
)

// logStore is the Raft log on disk. The library's own Close leaves its meta database open, with its
// file lock, so we bring and close that ourselves.
type logStore struct {
	*wal.WAL
	meta    *metadb.BoltMetaDB
	written written
	step    steps.Hook
	// parallel sends what is written here to the followers.
	parallel *parallelWriter
}

func openLog(c Config, hook steps.Hook, log *slog.Logger) (*logStore, error) {
	dir := filepath.Join(c.Dir, "log")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make raft log folder: %w", err)
	}
	meta, files := &metadb.BoltMetaDB{}, newRepairFiler(dir)
	if err := sealTail(dir, meta, files); err != nil {
		return nil, errors.Join(err, meta.Close())
	}
	w, err := wal.Open(dir, wal.WithMetaStore(meta), wal.WithSegmentFiler(files), wal.WithSegmentSize(c.SegmentBytes), wal.WithLogger(newLogger(log)))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open raft log in %q: %w", dir, err), meta.Close())
	}
	l := &logStore{WAL: w, meta: meta, step: hook, parallel: newParallelWriter(c)}
	l.written.grown = make(chan struct{}, 1)
	return l, nil
}

// IsMonotonic returns false: entries need not follow each other. Of a log whose entries must, the
// Raft library deletes everything when the leader sends a snapshot, and goes on believing in the
// entries that were beyond it (hashicorp/raft#697).
func (l *logStore) IsMonotonic() bool { return false }

// leap makes room for an entry that does not follow the last one: a snapshot covers what is
// between.
func (l *logStore) leap(next uint64) error {
	last, err := l.LastIndex()
	if err != nil || last == 0 || next <= last+1 {
		return err
	}
	first, err := l.FirstIndex()
	if err != nil {
		return err
	}
	return l.DeleteRange(first, last)
}

// DeleteRange forgets entries.
func (l *logStore) DeleteRange(first, last uint64) error {
	l.step.At(steps.Truncating)
	if err := l.WAL.DeleteRange(first, last); err != nil {
		return err
	}
	l.step.At(steps.Truncated)
	return nil
}

// Close closes the log; nothing may use it any more.
func (l *logStore) Close() error { return errors.Join(l.WAL.Close(), l.meta.Close()) }
