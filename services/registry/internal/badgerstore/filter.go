package badgerstore

import (
	"math/bits"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4/y"
)

// filter says of most keys that are not in a segment that they are not (Bloom, "Space/Time Trade-offs in Hash Coding with Allowable
// Errors", CACM 1970), so that whoever looks for a row does not search every segment for it. One goroutine adds; any number ask.
type filter struct{ words []uint64 }

// filterSpan is for how many bytes of a segment there is one bit: a dozen for a row of a few hundred bytes.
const filterSpan = 32

const wordBits = 64

func newFilter(segmentBytes int64) filter {
	return filter{make([]uint64, segmentBytes/filterSpan/wordBits+1)}
}

// hashOf answers what a filter is asked with.
func hashOf(key []byte) uint32 { return y.Hash(key) }

// places answers the two bits of a key. The second one is made of the same hash (Kirsch and Mitzenmacher, "Less Hashing, Same Performance", ESA 2006).
func (f filter) places(hash uint32) [2]uint32 {
	size := uint32(len(f.words)) * wordBits //nolint:gosec // a segment's size, over 2,048
	again := bits.RotateLeft32(hash, 15)
	return [2]uint32{hash % size, (hash + again) % size}
}

func (f filter) add(hash uint32) {
	for _, at := range f.places(hash) {
		atomic.OrUint64(&f.words[at/wordBits], 1<<(at%wordBits))
	}
}

// may says whether a key may have been added.
func (f filter) may(hash uint32) bool {
	for _, at := range f.places(hash) {
		if atomic.LoadUint64(&f.words[at/wordBits])&(1<<(at%wordBits)) == 0 {
			return false
		}
	}
	return true
}
