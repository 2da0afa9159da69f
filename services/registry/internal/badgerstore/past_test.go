package badgerstore

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// compact merges all tables, so that what may go is gone.
func compact(t *testing.T, s *Store) {
	t.Helper()
	_, err := s.Sync()
	require.NoError(t, err)
	die(t, s)
	merging, err := badger.OpenManaged(badgerOptions(s.opts).WithCompactL0OnClose(true))
	require.NoError(t, err)
	merging.SetDiscardTs(s.flushedWatermark.Load())
	require.NoError(t, merging.Close())
	reopened, err := Open(s.opts)
	require.NoError(t, err)
	s.db, s.rows, s.reached, s.closed = reopened.db, reopened.rows, reopened.reached, false
}

// commit writes one row at an index; an empty value deletes it.
func commit(t require.TestingT, s *Store, key, value string, index uint64) {
	b := s.Begin()
	r := row(key, value, index)
	r.Deleted = value == ""
	require.NoError(t, b.At(index).Put(r))
	require.NoError(t, b.Commit())
}

func valueAt(t require.TestingT, s *Store, key string, index uint64) string {
	value := ""
	require.NoError(t, s.ViewAt(index, func(r record.Reader) error {
		require.Equal(t, index, r.Index())
		row, err := r.Get(kv, key)
		if record.Live(row) {
			value = string(row.GetValue())
		}
		return err
	}))
	return value
}

func TestVersionsInsideTheWindowSurviveCompaction(t *testing.T) {
	o := testOptions(t.TempDir())
	o.Retention = 50
	s := mustOpen(t, o)
	for i := uint64(1); i <= 200; i++ {
		value := strconv.FormatUint(i, 10)
		if i%10 == 0 {
			value = ""
		}
		commit(t, s, "k", value, i)
	}
	compact(t, s)
	_, err := s.Purge(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 150, s.Oldest())
	for i := s.Oldest(); i <= 200; i++ {
		want := strconv.FormatUint(i, 10)
		if i%10 == 0 {
			want = ""
		}
		require.Equal(t, want, valueAt(t, s, "k", i), i)
	}
}

func TestVersionsOutsideTheWindowAreCompactedAway(t *testing.T) {
	o := testOptions(t.TempDir())
	o.Retention = 10
	s := mustOpen(t, o)
	for i := uint64(1); i <= 100; i++ {
		commit(t, s, "k", strings.Repeat("v", 100), i)
	}
	compact(t, s)
	txn := s.db.NewTransactionAt(1<<40, false)
	defer txn.Discard()
	it := txn.NewKeyIterator(rowKey(kv, "k"), badger.IteratorOptions{AllVersions: true})
	defer it.Close()
	versions := 0
	for it.Rewind(); it.Valid(); it.Next() {
		versions++
	}
	require.LessOrEqual(t, versions, 12, "the window and the version below it")
}

func TestIndexesOutsideTheWindowAreRefusedByName(t *testing.T) {
	o := testOptions(t.TempDir())
	o.Retention = 10
	s := mustOpen(t, o)
	for i := uint64(1); i <= 30; i++ {
		commit(t, s, "k", "v", i)
	}
	unseen := func(record.Reader) error { return errors.New("must not be read") }
	f, ok := fault.As(s.ViewAt(19, unseen))
	require.True(t, ok)
	require.Equal(t, fault.OutOfRange, f.Code())
	require.Equal(t, record.ReasonCompacted, f.Reason())
	require.Equal(t, "at_index", f.Field())
	require.Equal(t, "20", f.Meta()["oldest"])
	f, ok = fault.As(s.ViewAt(31, unseen))
	require.True(t, ok)
	require.Equal(t, fault.FailedPrecondition, f.Code())
	require.Equal(t, record.ReasonAhead, f.Reason())
	require.Equal(t, "30", f.Meta()["index"])

	// An index that falls out of the window under a reader is not shown.
	err := s.ViewAt(20, func(record.Reader) error {
		commit(t, s, "k", "v", 31)
		return nil
	})
	require.Equal(t, record.ReasonCompacted, fault.ReasonOf(err))
}

func TestARestoredStoreShowsNothingOlderThanItsSnapshot(t *testing.T) {
	source := mustOpen(t, testOptions(t.TempDir()))
	step(t, source, 1, 7)
	var snapshot bytes.Buffer
	require.NoError(t, source.WriteSnapshot(7, &snapshot))
	s := mustOpen(t, testOptions(t.TempDir()))
	require.NoError(t, s.Restore(&snapshot))
	require.EqualValues(t, 7, s.Oldest())
	require.Equal(t, record.ReasonCompacted, fault.ReasonOf(s.ViewAt(6, func(record.Reader) error { return nil })))
	require.Equal(t, "v", valueAt(t, s, "row-7", 7))
}

// Every index of the window shows what a model that keeps all versions shows.
func TestThePastAgreesWithAModel(t *testing.T) {
	o := testOptions(t.TempDir())
	o.Retention = 20
	s := mustOpen(t, o)
	history := []map[string]string{{}}
	index := uint64(0)
	rapid.Check(t, func(t *rapid.T) {
		for range rapid.IntRange(1, 10).Draw(t, "commits") {
			index++
			key := fmt.Sprintf("k%d", rapid.IntRange(0, 3).Draw(t, "key"))
			value := rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "value")
			commit(t, s, key, value, index)
			now := map[string]string{}
			for k, v := range history[index-1] {
				now[k] = v
			}
			delete(now, key)
			if value != "" {
				now[key] = value
			}
			history = append(history, now)
		}
		if rapid.IntRange(0, 9).Draw(t, "maintain") == 0 {
			_, err := s.Sync()
			require.NoError(t, err)
			_, err = s.Purge(t.Context())
			require.NoError(t, err)
		}
		at := rapid.Uint64Range(max(s.Oldest(), 1), index).Draw(t, "at")
		got := map[string]string{}
		require.NoError(t, s.ViewAt(at, func(r record.Reader) error {
			return r.Scan(kv, record.ScanOptions{}, func(row *registryv1.Record) bool {
				got[row.GetKey()] = string(row.GetValue())
				return true
			})
		}))
		require.Equal(t, history[at], got)
	})
}
