package raftnode

import (
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/types"
	"github.com/stretchr/testify/require"
)

func mustOpenLog(t *testing.T, dir string) *logStore {
	t.Helper()
	l, err := openLog(Config{Dir: dir, SegmentBytes: 1 << 20}, nil, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return l
}

func logEntries(first, last, term uint64) []*raft.Log {
	var out []*raft.Log
	for i := first; i <= last; i++ {
		out = append(out, &raft.Log{Index: i, Term: term, Type: raft.LogCommand, Data: []byte{byte(i)}})
	}
	return out
}

// requireLog says what terms the log holds from an index on, and nothing else.
func requireLog(t *testing.T, l *logStore, first uint64, terms ...uint64) {
	t.Helper()
	gotFirst, err := l.FirstIndex()
	require.NoError(t, err)
	require.Equal(t, first, gotFirst)
	last, err := l.LastIndex()
	require.NoError(t, err)
	require.Equal(t, first+uint64(len(terms))-1, last)
	for i, term := range terms {
		var e raft.Log
		require.NoError(t, l.GetLog(first+uint64(i), &e), "entry %d", first+uint64(i))
		require.Equal(t, term, e.Term)
		require.Equal(t, []byte{byte(first + uint64(i))}, e.Data)
	}
}

func TestALogWhoseEndWasCutOpensAgain(t *testing.T) {
	dir := t.TempDir()
	l := mustOpenLog(t, dir)
	require.NoError(t, l.StoreLogs(logEntries(1, 6, 1)))
	require.NoError(t, l.DeleteRange(4, 6))
	require.NoError(t, l.StoreLogs(logEntries(4, 5, 2)))
	requireLog(t, l, 1, 1, 1, 1, 2, 2)
	for range 2 {
		require.NoError(t, l.Close())
		l = mustOpenLog(t, dir)
		requireLog(t, l, 1, 1, 1, 1, 2, 2)
	}
	require.NoError(t, l.StoreLogs(logEntries(6, 6, 3)))
	require.NoError(t, l.DeleteRange(1, 2))
	require.NoError(t, l.Close())
	l = mustOpenLog(t, dir)
	requireLog(t, l, 3, 1, 2, 2, 3)
	require.NoError(t, l.Close())
}

// A snapshot from the leader reaches beyond the log: what comes next does not follow what is there.
func TestALogGoesOnBehindASnapshot(t *testing.T) {
	dir := t.TempDir()
	l := mustOpenLog(t, dir)
	require.False(t, l.IsMonotonic(), "the library would empty the log and go on believing in what was there")
	require.NoError(t, l.StoreLogs(logEntries(1, 6, 1)))
	require.NoError(t, l.StoreLogs(logEntries(20, 22, 2)))
	requireLog(t, l, 20, 2, 2, 2)
	require.Error(t, l.StoreLogs(logEntries(21, 22, 2)), "what is there is not written over")
	require.NoError(t, l.Close())
	l = mustOpenLog(t, dir)
	requireLog(t, l, 20, 2, 2, 2)
	require.NoError(t, l.Close())
}

// deadMeta stands for a process that dies before it can write down that a segment is full.
type deadMeta struct {
	metadb.BoltMetaDB
	dead bool
}

func (m *deadMeta) CommitState(s types.PersistentState) error {
	if m.dead {
		return errors.New("dead")
	}
	return m.BoltMetaDB.CommitState(s)
}

// killBetweenSegments leaves a log with three entries whose segment is full, and not marked so.
func killBetweenSegments(t *testing.T, dir string) {
	t.Helper()
	l := mustOpenLog(t, dir)
	require.NoError(t, l.StoreLogs(logEntries(1, 2, 1)))
	require.NoError(t, l.Close())

	meta := &deadMeta{}
	w, err := wal.Open(filepath.Join(dir, "log"), wal.WithMetaStore(meta), wal.WithSegmentSize(1<<20), wal.WithLogger(newLogger(slog.New(slog.DiscardHandler))))
	require.NoError(t, err)
	meta.dead = true
	full := logEntries(3, 3, 1)
	full[0].Data = make([]byte, 1<<20)
	require.NoError(t, w.StoreLogs(full))
	require.NoError(t, errors.Join(w.Close(), meta.Close()))
}

func TestALogKilledBetweenTwoSegmentsGoesOn(t *testing.T) {
	dir := t.TempDir()
	killBetweenSegments(t, dir)
	l := mustOpenLog(t, dir)
	require.NoError(t, l.StoreLogs(logEntries(4, 5, 1)))
	require.NoError(t, l.Close())
	l = mustOpenLog(t, dir)
	last, err := l.LastIndex()
	require.NoError(t, err)
	require.EqualValues(t, 5, last)
	for index := uint64(1); index <= last; index++ {
		require.NoError(t, l.GetLog(index, &raft.Log{}), "entry %d", index)
	}
	require.NoError(t, l.Close())
}

// When this fails, the log library reads what it could not, and walrepair.go can go.
func TestTheLogLibraryNeedsRepair(t *testing.T) {
	open := func(dir string) (*wal.WAL, error) {
		return wal.Open(filepath.Join(dir, "log"), wal.WithSegmentSize(1<<20), wal.WithLogger(newLogger(slog.New(slog.DiscardHandler))))
	}
	t.Run("after its end was cut off", func(t *testing.T) {
		dir := t.TempDir()
		l := mustOpenLog(t, dir)
		require.NoError(t, l.StoreLogs(logEntries(1, 6, 1)))
		require.NoError(t, l.DeleteRange(4, 6))
		require.NoError(t, l.StoreLogs(logEntries(4, 5, 2)))
		require.NoError(t, l.Close())
		w, err := open(dir)
		if err == nil {
			err = w.GetLog(1, &raft.Log{})
		}
		require.Error(t, err)
	})
	t.Run("killed between two segments", func(t *testing.T) {
		dir := t.TempDir()
		killBetweenSegments(t, dir)
		w, err := open(dir)
		if err == nil {
			err = w.StoreLogs(logEntries(4, 4, 1))
		}
		require.Error(t, err)
	})
}
