package badgerstore

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/testing/protocmp"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/record/recordtest"
)

const kv = registryv1.Table_TABLE_KV

func testOptions(dir string) Options {
	o := DefaultOptions(dir, slog.New(slog.DiscardHandler))
	o.BadgerMemtableBytes = 8 << 20
	return o
}

func mustOpen(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func row(key, value string, index uint64) *registryv1.Record {
	return &registryv1.Record{Table: kv, Key: key, Value: []byte(value), CreateIndex: 1, ModifyIndex: index, Version: index}
}

// step commits one batch of the commands first to last: command i appends its index to row "sum",
// so that each depends on the one before, and writes a row of its own.
func step(t *testing.T, s *Store, first, last uint64) {
	t.Helper()
	b := s.Begin()
	defer b.Discard()
	for i := first; i <= last; i++ {
		tx := b.At(i)
		old, err := tx.Get(kv, "sum")
		require.NoError(t, err)
		require.NoError(t, tx.Put(row("sum", fmt.Sprintf("%s,%d", old.GetValue(), i), i)))
		require.NoError(t, tx.Put(row(fmt.Sprintf("row-%d", i), "v", i)))
	}
	require.NoError(t, b.Commit())
}

// die ends a store as a process that is killed does.
func die(t require.TestingT, s *Store) {
	require.NoError(t, s.db.Close())
	require.NoError(t, s.reached.file.Close())
	s.closed = true
}

func contents(t *testing.T, s *Store) []*registryv1.Record {
	t.Helper()
	var rows []*registryv1.Record
	require.NoError(t, s.View(func(r record.Reader) (err error) {
		rows, err = recordtest.Dump(r)
		return err
	}))
	return rows
}

func TestReplayOverLeftoversOfACutFlushGivesTheSameState(t *testing.T) {
	want := mustOpen(t, testOptions(t.TempDir()))
	step(t, want, 1, 3)
	step(t, want, 4, 9)

	o := testOptions(t.TempDir())
	s := mustOpen(t, o)
	step(t, s, 1, 3)
	_, err := s.Sync()
	require.NoError(t, err)
	step(t, s, 4, 8)
	err = s.write(s.tables.Load().active, 0) // The process dies before it can say that the flush is whole.
	require.NoError(t, err)
	die(t, s)

	again := mustOpen(t, o)
	require.EqualValues(t, 3, again.Applied())
	require.EqualValues(t, 8, again.Reached(), "nobody may be shown less than before")
	require.Len(t, contents(t, again), 4, "nobody sees a flush that is not whole")
	step(t, again, 4, 9)
	require.Empty(t, cmp.Diff(contents(t, want), contents(t, again), protocmp.Transform()))
}

// halfFlushed opens a store with nine commands, five of which are in the files, and returns what it
// holds.
func halfFlushed(t *testing.T, o Options) (*Store, []*registryv1.Record) {
	t.Helper()
	s := mustOpen(t, o)
	step(t, s, 1, 5)
	synced, err := s.Sync()
	require.NoError(t, err)
	require.EqualValues(t, 5, synced)
	step(t, s, 6, 9)
	return s, contents(t, s)
}

func TestWhatWasNotFlushedIsAppliedAgain(t *testing.T) {
	o := testOptions(t.TempDir())
	s, before := halfFlushed(t, o)
	die(t, s)

	after, err := Open(o)
	require.NoError(t, err)
	require.EqualValues(t, 5, after.Applied())
	require.EqualValues(t, 9, after.Reached())
	step(t, after, 6, 9)
	require.Empty(t, cmp.Diff(before, contents(t, after), protocmp.Transform()))
	require.NoError(t, after.Close())

	closed := mustOpen(t, o)
	require.EqualValues(t, 9, closed.Applied(), "whoever closes it leaves nothing to be applied again")
	require.Empty(t, cmp.Diff(before, contents(t, closed), protocmp.Transform()))
}

// Earlier versions wrote each batch into the files, and let nothing go that was not synced.
func TestAFolderOfTheVersionBeforeIsTakenOverAsOfItsLastSync(t *testing.T) {
	o := testOptions(t.TempDir())
	s, before := halfFlushed(t, o)
	require.NoError(t, s.write(s.tables.Load().active, 0))
	die(t, s)
	require.NoError(t, os.Remove(filepath.Join(o.Dir, reachedFile)))
	require.NoError(t, os.WriteFile(filepath.Join(o.Dir, manifestFile), []byte(`{"boot_id":"a-b-c","synced":5,"oldest":2}`), 0o600))

	taken := mustOpen(t, o)
	require.EqualValues(t, 5, taken.Applied())
	require.EqualValues(t, 5, taken.Reached())
	require.EqualValues(t, 5, taken.Oldest())
	step(t, taken, 6, 9)
	require.Empty(t, cmp.Diff(before, contents(t, taken), protocmp.Transform()))
}

func TestRestoreReplacesEverything(t *testing.T) {
	source := mustOpen(t, testOptions(t.TempDir()))
	step(t, source, 1, 7)
	b := source.Begin()
	require.NoError(t, b.At(8).Put(&registryv1.Record{Table: kv, Key: "row-2", Deleted: true, ModifyIndex: 8}))
	require.NoError(t, b.Commit())
	var snapshot bytes.Buffer
	require.NoError(t, source.WriteSnapshot(source.Applied(), &snapshot))

	o := testOptions(t.TempDir())
	target := mustOpen(t, o)
	step(t, target, 1, 3)
	require.NoError(t, target.Restore(bytes.NewReader(snapshot.Bytes())))
	require.EqualValues(t, 8, target.Applied())
	require.Empty(t, cmp.Diff(contents(t, source), contents(t, target), protocmp.Transform()))

	cut := mustOpen(t, testOptions(t.TempDir()))
	step(t, cut, 1, 3)
	require.Error(t, cut.Restore(bytes.NewReader(snapshot.Bytes()[:snapshot.Len()-3])))
	require.NoError(t, cut.Close())
	reopened := mustOpen(t, cut.opts)
	require.Zero(t, reopened.Applied(), "a restore cut short is started again, never trusted")
}

func TestScanSeesDeltasAndTheBatchItself(t *testing.T) {
	s := mustOpen(t, testOptions(t.TempDir()))
	step(t, s, 1, 5)
	keys := func(r interface {
		Scan(registryv1.Table, record.ScanOptions, func(*registryv1.Record) bool) error
	}, o record.ScanOptions,
	) (out []string) {
		require.NoError(t, r.Scan(kv, o, func(r *registryv1.Record) bool {
			out = append(out, r.GetKey())
			return true
		}))
		return out
	}
	require.NoError(t, s.View(func(r record.Reader) error {
		require.Equal(t, []string{"row-4", "row-5", "sum"}, keys(r, record.ScanOptions{Since: 3}))
		require.Equal(t, []string{"row-3", "row-4", "row-5"}, keys(r, record.ScanOptions{Prefix: "row-", From: "row-3"}))
		return nil
	}))
	b := s.Begin()
	defer b.Discard()
	tx := b.At(6)
	require.NoError(t, tx.Put(row("row-0", "new", 6)))
	require.NoError(t, tx.Put(row("row-3", "new", 6)))
	require.NoError(t, tx.Put(&registryv1.Record{Table: kv, Key: "row-4", Deleted: true, ModifyIndex: 6}))
	require.NoError(t, tx.Drop(kv, "row-5"))
	require.NoError(t, tx.Put(row("zzz", "new", 6)))
	require.Equal(t, []string{"row-0", "row-1", "row-2", "row-3", "sum", "zzz"}, keys(tx, record.ScanOptions{}))
	require.Equal(t, []string{"row-0", "row-3", "row-4", "zzz"}, keys(tx, record.ScanOptions{Since: 5, Deleted: true}))
}

func TestPurgeRemovesOldTombstonesOnly(t *testing.T) {
	o := testOptions(t.TempDir())
	o.Retention = 10
	s := mustOpen(t, o)
	step(t, s, 1, 3)
	bury := func(key string, index uint64) {
		b := s.Begin()
		require.NoError(t, b.At(index).Put(&registryv1.Record{Table: kv, Key: key, Deleted: true, ModifyIndex: index}))
		require.NoError(t, b.Commit())
	}
	bury("row-1", 4)
	bury("row-2", 5)
	step(t, s, 6, 9)
	bury("row-6", 14)
	b := s.Begin()
	require.NoError(t, b.At(15).Put(row("row-2", "again", 15)))
	require.NoError(t, b.Commit())
	require.EqualValues(t, 5, s.Watermark())
	n, err := s.Purge(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, n, "that of the row that was written again, too")
	var keys []string
	for _, r := range contents(t, s) {
		keys = append(keys, fmt.Sprint(r.GetKey(), r.GetDeleted()))
	}
	require.Equal(t, []string{"row-2false", "row-3false", "row-6true", "row-7false", "row-8false", "row-9false", "sumfalse"}, keys)
}

func TestABatchLargerThanBadgersOwnLimitIsWritten(t *testing.T) {
	s := mustOpen(t, testOptions(t.TempDir()))
	b := s.Begin()
	for i := uint64(1); i <= 32; i++ {
		require.NoError(t, b.At(i).Put(row(fmt.Sprintf("big-%02d", i), string(make([]byte, 512<<10)), i)))
	}
	require.NoError(t, b.Commit())
	require.Len(t, contents(t, s), 32)
}
