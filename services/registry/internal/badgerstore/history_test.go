package badgerstore

import (
	"fmt"
	"math"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

func history(t *testing.T, s *Store, key string) (indexes []uint64, completeAfter uint64) {
	t.Helper()
	require.NoError(t, s.View(func(r record.Reader) (err error) {
		completeAfter, err = r.History(kv, key, func(row *registryv1.Record) bool {
			indexes = append(indexes, row.GetModifyIndex())
			return true
		})
		return err
	}))
	return indexes, completeAfter
}

// stored counts the versions of a key that are on disk, known or not.
func stored(s *Store, key string) int {
	txn := s.db.NewTransactionAt(math.MaxUint64, false)
	defer txn.Discard()
	it := txn.NewKeyIterator(rowKey(kv, key), badger.IteratorOptions{AllVersions: true})
	defer it.Close()
	n := 0
	for it.Rewind(); it.Valid(); it.Next() {
		n++
	}
	return n
}

func TestHistoryInsideTheWindowSurvivesCompaction(t *testing.T) {
	o := testOptions(t.TempDir())
	o.Retention = 40
	// More tables than the store leaves uncompacted at its top.
	const last, runs = 200, topTables + 8
	for run := range runs { // Each run leaves its table behind when it closes.
		s, err := Open(o)
		require.NoError(t, err)
		for i := uint64(run*last/runs + 1); i <= uint64((run+1)*last/runs); i++ {
			b := s.Begin()
			require.NoError(t, b.At(i).Put(row("often", fmt.Sprint(i), i)))
			require.NoError(t, b.Commit())
			if i == 3 {
				b := s.Begin()
				require.NoError(t, b.At(i+1).Put(row("once", "v", i+1)))
				require.NoError(t, b.Commit())
			}
		}
		require.NoError(t, s.Close())
	}
	s := mustOpen(t, o)
	_, err := s.Sync()
	require.NoError(t, err)
	require.NoError(t, s.db.Flatten(2))
	require.Less(t, stored(s, "often"), last-100, "nothing was compacted, so nothing is tested")

	indexes, after := history(t, s, "often")
	require.EqualValues(t, last-40, after)
	require.Len(t, indexes, 40)
	for i, index := range indexes {
		require.EqualValues(t, last-i, index)
	}
	indexes, _ = history(t, s, "once")
	require.Equal(t, []uint64{4}, indexes, "what stands is known however old it is")
	indexes, _ = history(t, s, "never")
	require.Empty(t, indexes)
}
