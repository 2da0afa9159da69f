package badgerstore

import (
	"fmt"
	"hash/maphash"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// Keys whose hashes are alike are told apart, however many there are.
func TestKeysAreFoundWhateverTheirHashes(t *testing.T) {
	s := newSegment(swap{dir: t.TempDir(), spillBytes: 1 << 20}, 1, nil)
	seed := maphash.MakeSeed()
	const keys = 3000
	for n := range keys {
		require.EqualValues(t, n, s.number(rowID{kv, fmt.Sprint(n)}, seed))
	}
	for n := range keys {
		s.keys[n].hash %= 7
	}
	s.widen(keys)
	for n := range keys {
		_, number, ok := s.lookup(s.keys[n].hash, rowKey(kv, fmt.Sprint(n)))
		require.True(t, ok)
		require.EqualValues(t, n, number)
	}
	_, _, ok := s.lookup(3, rowKey(kv, "never"))
	require.False(t, ok)
}

// Indexes that are far apart do not fit one segment.
func TestSegmentsSpanNoMoreIndexesThanTheyCanCount(t *testing.T) {
	m := newMemtable(t.TempDir(), 1<<20)
	indexes := []uint64{1, 2, math.MaxUint32, 1 << 40, 1<<40 + 1}
	for _, index := range indexes {
		require.NoError(t, m.add(index, nil))
		require.NoError(t, m.add(index, []*change{{id: rowID{kv, "a"}, index: index, row: row("a", "v", index)}}))
	}
	var got []uint64
	for v := range m.segments().versions(rowKey(kv, "a"), math.MaxUint64) {
		got = append(got, v.index)
	}
	require.Equal(t, []uint64{1<<40 + 1, 1 << 40, math.MaxUint32, 2, 1}, got)
}
