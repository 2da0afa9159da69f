package raftnode

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// repairFiler opens segments whose end was cut off while they were written. The WAL library marks
// them as full without the index that full segments have, and cannot read them after a restart
// (hashicorp/raft-wal#31): these are scanned.
type repairFiler struct{ *segment.Filer }

func newRepairFiler(dir string) repairFiler {
	return repairFiler{segment.NewFiler(dir, files{walfs.New(), make([]byte, zeroAhead)})}
}

// Open implements types.SegmentFiler.
func (f repairFiler) Open(info types.SegmentInfo) (types.SegmentReader, error) {
	if info.IndexStart > 0 {
		return f.Filer.Open(info)
	}
	return f.RecoverTail(info)
}

// sealTail finishes what a process began that died between filling a segment and writing down that
// it is full: the library would take no entry any more.
func sealTail(dir string, meta types.MetaStore, files repairFiler) error {
	state, err := meta.Load(dir)
	if err != nil {
		return fmt.Errorf("read the log's segments: %w", err)
	}
	if len(state.Segments) == 0 {
		return nil
	}
	tail := &state.Segments[len(state.Segments)-1]
	if !tail.SealTime.IsZero() {
		return nil
	}
	w, err := files.RecoverTail(*tail)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // The library makes it.
	}
	if err != nil {
		return fmt.Errorf("read the log's last segment: %w", err)
	}
	full, _, err := w.Sealed()
	last := w.LastIndex()
	if err = errors.Join(err, w.Close()); err != nil || !full {
		return err
	}
	next := *tail
	next.ID, next.CreateTime = state.NextSegmentID, time.Now()
	state.NextSegmentID++
	if last == 0 {
		*tail = next // Nothing of it was ever acknowledged.
	} else {
		// Without IndexStart, for the index may not have been written whole: it is scanned.
		tail.SealTime, tail.MaxIndex = time.Now(), last
		next.BaseIndex, next.MinIndex = last+1, last+1
		state.Segments = append(state.Segments, next)
	}
	if err := meta.CommitState(state); err != nil {
		return fmt.Errorf("begin a segment of the log: %w", err)
	}
	return nil
}
