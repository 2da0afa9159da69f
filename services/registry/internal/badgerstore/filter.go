package badgerstore

import (
	"hash/maphash"
	"sync/atomic"
)

// filter says of most keys that are not in a segment that they are not (Bloom, "Space/Time Trade-offs in Hash Coding with Allowable
// Errors", CACM 1970), so that whoever looks for a row does not search every segment for it. One goroutine adds; any number ask.
type filter struct{ words []uint64 }

// filterSpan is for how many bytes of a segment there is one bit: a dozen for a row of a few hundred bytes.
const filterSpan = 32

const wordBits = 64

var filterSeed = maphash.MakeSeed()

func newFilter(segmentBytes int64) filter {
	return filter{make([]uint64, segmentBytes/filterSpan/wordBits+1)}
}

// hashOf answers what a filter is asked with.
func hashOf(key []byte) uint64 { return maphash.Bytes(filterSeed, key) }

// places answers the two bits of a key.
func (f filter) places(hash uint64) [2]uint64 {
	bits := uint64(len(f.words)) * wordBits
	return [2]uint64{hash >> 32 % bits, hash & (1<<32 - 1) % bits}
}

func (f filter) add(hash uint64) {
	for _, at := range f.places(hash) {
		atomic.OrUint64(&f.words[at/wordBits], 1<<(at%wordBits))
	}
}

// may says whether a key may have been added.
func (f filter) may(hash uint64) bool {
	for _, at := range f.places(hash) {
		if atomic.LoadUint64(&f.words[at/wordBits])&(1<<(at%wordBits)) == 0 {
			return false
		}
	}
	return true
}
