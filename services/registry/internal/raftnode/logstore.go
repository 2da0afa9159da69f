package raftnode

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
)

// logStore is the Raft log on disk. The library's own Close leaves its meta database open, with its
// file lock, so we bring and close that ourselves.
type logStore struct {
	*wal.WAL
	meta *metadb.BoltMetaDB
}

func openLog(c Config, log *slog.Logger) (*logStore, error) {
	dir := filepath.Join(c.Dir, "log")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make raft log folder: %w", err)
	}
	meta := &metadb.BoltMetaDB{}
	w, err := wal.Open(dir, wal.WithMetaStore(meta), wal.WithSegmentSize(c.SegmentBytes), wal.WithLogger(newLogger(log)))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open raft log in %q: %w", dir, err), meta.Close())
	}
	return &logStore{WAL: w, meta: meta}, nil
}

// Close closes the log; nothing may use it any more.
func (l *logStore) Close() error { return errors.Join(l.WAL.Close(), l.meta.Close()) }
