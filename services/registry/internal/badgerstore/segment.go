package badgerstore

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"iter"
	"os"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// segment holds the versions of a span of indexes: of each of them all versions, or none. Where a version is and what it is a
// version of lies in memory, a tenth of the whole, without a pointer for the collector to follow; the rows themselves lie in a file.
//
// Rows are found by a hash of their key, and put in order for whoever goes over them: most are never gone over.
type segment struct {
	// last is the highest index that is here.
	last atomic.Uint64
	// bytes is about what is here, in memory and in the file.
	bytes atomic.Int64
	// sealed says that nothing is going to be added: then nothing here needs mu.
	sealed atomic.Bool

	mu sync.RWMutex
	// numbers has the number of a key for its hash; keys of one hash are a chain.
	numbers map[uint64]uint32
	// text is all keys, one after the other, keys where each of them is there. Neither changes but at its end.
	text []byte
	keys []segmentKey
	// newest has, by the number of a key, the number of its newest version, and versions all of them.
	newest   []uint32
	versions []version
	rows     swap

	sorting sync.Mutex
	// order is the last order of keys that somebody asked for.
	order atomic.Pointer[order]
}

// segmentKey says where a key's text is. same is one more than the number of an older key with the same hash; 0: there is none.
type segmentKey struct{ at, size, same uint32 }

// version is one version of a row. Its encoded row has size bytes at a place of the swap; older is one more than the number of the row's version before, 0 when
// there is none here.
type version struct {
	index     uint64
	at        int64
	size      uint32
	older     uint32
	dropped   bool // without a trace
	tombstone bool
}

// versionBytes is what a version takes in memory.
const versionBytes = 32

// place is a version and the segment that has it.
type place struct {
	in *segment
	version
}

// segmentSpills is into how many parts a segment is written to its file.
const segmentSpills = 12

// newSegment answers an empty segment with a swap, which is about to become like the one before it, if there is one.
func newSegment(rows swap, before *segment) *segment {
	s := &segment{rows: rows}
	if before == nil {
		s.numbers = map[uint64]uint32{}
		return s
	}
	s.numbers = make(map[uint64]uint32, len(before.keys))
	s.text = make([]byte, 0, len(before.text))
	s.keys = make([]segmentKey, 0, len(before.keys))
	s.newest = make([]uint32, 0, len(before.newest))
	s.versions = make([]version, 0, len(before.versions))
	return s
}

func (s *segment) add(last uint64, changes []*change, seed maphash.Seed) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last.Store(last)
	before := s.rows.size() + int64(len(s.text))
	for _, c := range changes {
		v := version{index: c.index, at: s.rows.size(), dropped: c.row == nil}
		if c.row != nil {
			v.tombstone = c.row.GetDeleted()
			if err := s.rows.append(c.row); err != nil {
				return err
			}
			v.size = uint32(s.rows.size() - v.at) //nolint:gosec // rows are far smaller
		}
		n := s.number(c.id, seed)
		v.older = s.newest[n]
		s.versions = append(s.versions, v)
		s.newest[n] = uint32(len(s.versions)) //nolint:gosec // segments have fewer
	}
	s.bytes.Add(s.rows.size() + int64(len(s.text)) - before + versionBytes*int64(len(changes)))
	return nil
}

// number answers the number of a key, which is new if it must be.
func (s *segment) number(id rowID, seed maphash.Seed) uint32 {
	start := len(s.text)
	s.text = appendRowKey(s.text, id.table, id.key)
	key := s.text[start:]
	hash := maphash.Bytes(seed, key)
	n, ok := s.lookup(hash, key)
	if ok {
		s.text = s.text[:start]
		return n
	}
	fresh := segmentKey{at: uint32(start), size: uint32(len(key))} //nolint:gosec // segments are far smaller
	if first, ok := s.numbers[hash]; ok {
		fresh.same = first + 1
	}
	n = uint32(len(s.keys)) //nolint:gosec // segments have fewer
	s.keys, s.newest, s.numbers[hash] = append(s.keys, fresh), append(s.newest, 0), n
	return n
}

// lookup answers the number of a key. It runs under mu.
func (s *segment) lookup(hash uint64, key []byte) (uint32, bool) {
	n, ok := s.numbers[hash]
	for ok {
		k := s.keys[n]
		if bytes.Equal(s.text[k.at:k.at+k.size], key) {
			return n, true
		}
		n, ok = k.same-1, k.same > 0
	}
	return 0, false
}

// seal says that nothing is going to be added, and answers a buffer for the next segment.
func (s *segment) seal() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	spare := s.rows.end()
	s.sealed.Store(true) // From here on nobody asks for mu.
	return spare
}

// reading runs fn while nothing is added.
func (s *segment) reading(fn func()) {
	if !s.sealed.Load() {
		s.mu.RLock()
		defer s.mu.RUnlock()
	}
	fn()
}

// find answers the version of a row that stands as of an index.
func (s *segment) find(hash uint64, key []byte, index uint64) (v version, ok bool) {
	s.reading(func() {
		var n uint32
		if n, ok = s.lookup(hash, key); ok {
			v, ok = s.standing(n, index)
		}
	})
	return v, ok
}

// standing answers the version of a key that stands as of an index. It runs under mu.
func (s *segment) standing(number uint32, index uint64) (version, bool) {
	for n := s.newest[number]; n > 0; {
		v := s.versions[n-1]
		if v.index <= index {
			return v, true
		}
		n = v.older
	}
	return version{}, false
}

// at is standing for whoever does not hold mu.
func (s *segment) at(number uint32, index uint64) (v version, ok bool) {
	s.reading(func() { v, ok = s.standing(number, index) })
	return v, ok
}

// from goes over a version, if there is one, and those of the same row that came before it, the newest first.
func (s *segment) from(v version, ok bool) iter.Seq[place] {
	return func(yield func(place) bool) {
		for ok && yield(place{s, v}) {
			if ok = v.older > 0; ok {
				s.reading(func() { v = s.versions[v.older-1] })
			}
		}
	}
}

// row answers the row of a version, nil for one that was dropped.
func (p place) row(keysOnly bool) (*registryv1.Record, error) {
	if p.dropped {
		return nil, nil
	}
	value, err := p.value()
	if err != nil {
		return nil, err
	}
	return decodeRow(value, keysOnly)
}

// value answers the encoded row of a version. It is the caller's.
func (p place) value() ([]byte, error) {
	var file *os.File
	value := make([]byte, p.size)
	p.in.reading(func() { file = p.in.rows.copy(value, p.at) })
	if file == nil {
		return value, nil
	}
	if _, err := file.ReadAt(value, p.at); err != nil {
		return nil, fmt.Errorf("read a row of the tail: %w", err)
	}
	return value, nil
}

// order is the keys of a segment in their order, as far as there were keys when it was made.
type order struct {
	text    []byte
	keys    []segmentKey
	numbers []uint32
}

// key answers the key at a place of the order.
func (o *order) key(at int) []byte { return o.keyOf(o.numbers[at]) }

func (o *order) keyOf(number uint32) []byte {
	k := o.keys[number]
	return o.text[k.at : k.at+k.size]
}

// seek answers the place of the first key that is not below one.
func (o *order) seek(key []byte) int {
	return sort.Search(len(o.numbers), func(i int) bool { return bytes.Compare(o.key(i), key) >= 0 })
}

// inOrder answers the keys in their order. Those that came since somebody asked last are sorted, and put where they belong.
func (s *segment) inOrder() *order {
	s.sorting.Lock()
	defer s.sorting.Unlock()
	now := &order{}
	s.reading(func() { now.text, now.keys = s.text, s.keys })
	var old []uint32
	if last := s.order.Load(); last != nil {
		if old = last.numbers; len(old) == len(now.keys) {
			return last
		}
	}
	fresh := make([]uint32, 0, len(now.keys)-len(old))
	for n := len(old); n < len(now.keys); n++ {
		fresh = append(fresh, uint32(n)) //nolint:gosec // segments have fewer
	}
	slices.SortFunc(fresh, func(a, b uint32) int { return bytes.Compare(now.keyOf(a), now.keyOf(b)) })
	now.numbers = make([]uint32, 0, len(now.keys))
	for _, n := range fresh {
		before := sort.Search(len(old), func(i int) bool { return bytes.Compare(now.keyOf(old[i]), now.keyOf(n)) > 0 })
		now.numbers = append(append(now.numbers, old[:before]...), n)
		old = old[before:]
	}
	now.numbers = append(now.numbers, old...)
	s.order.Store(now)
	return now
}
