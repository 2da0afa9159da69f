package fsm

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func keyNumber(n uint64) requestKey {
	var key requestKey
	binary.LittleEndian.PutUint64(key[:], n)
	return key
}

// A ledger is a list of keys and the place of the last of each.
func TestLedgerFindsWhatWasAddedAndNotForgotten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := newLedger()
		l.first = rapid.SampledFrom([]uint64{0, numberSpan - 1000, numberSpan, 1 << 40}).Draw(t, "first number")
		var keys []requestKey
		first := l.first
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			// Few kinds of keys, so that some come again.
			kinds := rapid.Uint64Range(1, 1<<14).Draw(t, "kinds")
			for i := range rapid.Uint64Range(0, 3*chunkKeys/2).Draw(t, "added") {
				key := keyNumber(i * i % kinds)
				require.Equal(t, first+uint64(len(keys)), l.next())
				l.add(key)
				keys = append(keys, key)
			}
			n := rapid.IntRange(0, len(keys)).Draw(t, "forgotten")
			l.forget(n)
			keys, first = keys[n:], first+uint64(n)

			last := map[requestKey]uint64{}
			for i, key := range keys {
				last[key] = first + uint64(i)
			}
			for i := range kinds {
				number, found := l.find(keyNumber(i))
				want, there := last[keyNumber(i)]
				require.Equal(t, there, found, "key %d", i)
				if there {
					require.Equal(t, want, number, "key %d", i)
				}
			}
			require.Equal(t, len(keys), l.count)
		}
	})
}

func TestLedgerTakesNoMoreThanItsKeysNeed(t *testing.T) {
	t.Parallel()
	l := newLedger()
	for i := range uint64(4 * RequestsKept) {
		l.add(keyNumber(i))
		if l.count > RequestsKept {
			l.forget(1)
		}
	}
	require.Equal(t, RequestsKept, l.count)
	require.LessOrEqual(t, len(l.chunks), RequestsKept/chunkKeys+1)
	require.LessOrEqual(t, len(l.slots), 2*RequestsKept)
}
