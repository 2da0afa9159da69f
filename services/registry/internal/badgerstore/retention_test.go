package badgerstore

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// fill commits one batch of a row of size bytes at each index.
func fill(t *testing.T, s *Store, first, last uint64, size int) {
	t.Helper()
	for index := first; index <= last; index++ {
		b := s.Begin()
		require.NoError(t, b.At(index).Put(row(fmt.Sprintf("row-%d", index%4), string(make([]byte, size)), index)))
		require.NoError(t, b.Commit())
	}
}

func TestTheWindowIsBoundedByWhatWasWritten(t *testing.T) {
	options := testOptions(t.TempDir())
	options.RetentionBytes = 1 << 20
	s, err := Open(options)
	require.NoError(t, err)
	fill(t, s, 1, 300, 64<<10)
	watermark := s.Watermark()
	require.Greater(t, watermark, uint64(280), "a mebibyte is sixteen such rows")
	require.Less(t, watermark, uint64(300))
	require.NoError(t, s.ViewAt(watermark, func(r record.Reader) error {
		got, err := r.Get(kv, fmt.Sprintf("row-%d", watermark%4))
		require.Equal(t, watermark, got.GetModifyIndex())
		return err
	}))
	require.Error(t, s.ViewAt(watermark-1, func(record.Reader) error { return nil }))
	require.NoError(t, s.Close())

	s, err = Open(options)
	require.NoError(t, err)
	require.GreaterOrEqual(t, s.Watermark(), watermark, "what was let go does not come back with a restart")
	fill(t, s, 301, 310, 64<<10)
	watermark = s.flushedWatermark.Load()
	die(t, s)

	s = mustOpen(t, options)
	require.GreaterOrEqual(t, s.Watermark(), watermark, "nor with a crash")
}

// A memtable that is full goes into the files when the next one is, and what was overwritten since
// goes nowhere.
func TestAFullMemtableIsFlushed(t *testing.T) {
	options := testOptions(t.TempDir())
	options.RetentionBytes, options.MemtableBytes = 1<<20, 2<<20
	s := mustOpen(t, options)
	ctx, cancel := context.WithCancel(t.Context())
	maintained := make(chan error, 1)
	go func() { maintained <- s.Maintain(ctx) }()
	fill(t, s, 1, 15, 64<<10)
	require.Zero(t, s.synced.Load(), "none is full yet")
	fill(t, s, 16, 48, 64<<10)
	require.Eventually(t, func() bool { return s.synced.Load() >= 8 }, time.Minute, time.Millisecond)
	require.LessOrEqual(t, s.synced.Load(), s.Watermark())
	require.Eventually(t, func() bool { return s.tables.Load().bytes() < options.MemtableBytes }, time.Minute, time.Millisecond)
	require.Equal(t, 1, stored(s, "row-1"))
	cancel()
	require.NoError(t, <-maintained)
}

// Whoever writes faster than the files take it waits for them; a retention window that is larger
// than the memtable is kept in the files.
func TestTheMemtableIsBounded(t *testing.T) {
	options := testOptions(t.TempDir())
	options.RetentionBytes, options.MemtableBytes = 64<<20, 1<<20
	s := mustOpen(t, options)
	for last := uint64(40); last <= 400; last += 40 {
		fill(t, s, last-39, last, 64<<10)
		require.Less(t, s.tables.Load().bytes(), 2*options.MemtableBytes)
	}
	require.Zero(t, s.Watermark())
	for index := uint64(1); index <= 400; index++ {
		require.NoError(t, s.ViewAt(index, func(r record.Reader) error {
			got, err := r.Get(kv, fmt.Sprintf("row-%d", index%4))
			require.Equal(t, index, got.GetModifyIndex())
			return err
		}))
	}
	indexes, _ := history(t, s, "row-1")
	require.Len(t, indexes, 100)
}

// A reader that takes longer than the window lasts hears so, instead of being answered with what
// compaction left.
func TestAReaderThatFellOutOfTheWindowHearsSo(t *testing.T) {
	options := testOptions(t.TempDir())
	options.Retention = 100
	options.RowCacheBytes = 0
	s := mustOpen(t, options)
	fill(t, s, 1, 10, 10)
	require.NoError(t, s.View(func(r record.Reader) error {
		_, err := r.Get(kv, "row-1")
		require.NoError(t, err)
		fill(t, s, 11, 200, 10)
		for _, key := range []string{"row-1", "nothing"} {
			_, err = r.Get(kv, key)
			require.Equal(t, record.ReasonCompacted, fault.ReasonOf(err))
		}
		err = r.Scan(kv, record.ScanOptions{}, func(*registryv1.Record) bool { return true })
		require.Equal(t, record.ReasonCompacted, fault.ReasonOf(err))
		_, err = r.History(kv, "row-1", func(*registryv1.Record) bool { return true })
		require.Equal(t, record.ReasonCompacted, fault.ReasonOf(err))
		return nil
	}))
}

func TestASnapshotOfWhatWasLetGoIsRefused(t *testing.T) {
	options := testOptions(t.TempDir())
	options.Retention = 100
	s := mustOpen(t, options)
	fill(t, s, 1, 300, 10)
	require.Error(t, s.WriteSnapshot(150, io.Discard))
	require.NoError(t, s.WriteSnapshot(250, io.Discard))
}

func TestSmallWritesKeepTheirIndexes(t *testing.T) {
	options := testOptions(t.TempDir())
	options.Retention = 100
	s := mustOpen(t, options)
	fill(t, s, 1, 300, 10)
	require.EqualValues(t, 200, s.Watermark())
	other := mustOpen(t, testOptions(t.TempDir()))
	restoreFrom(t, s, other)
	require.EqualValues(t, 200, other.Watermark(), "a copy knows what its source had forgotten")
}
