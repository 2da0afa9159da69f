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

// segment is a part of the memtable: the versions of a span of indexes. Keys, and where each
// version is, lie in memory, a tenth of the whole, without a pointer for the collector to follow;
// the rows lie in a swap.
//
// Rows are found by a hash of their key, and sorted for whoever goes over them: most are never gone
// over.
type segment struct {
	// last is the highest index that is here.
	last atomic.Uint64
	// bytes is about what is here, in memory and in the file.
	bytes atomic.Int64
	// sealed says that nothing is going to be added: then nothing here needs mu.
	sealed atomic.Bool

	mu sync.RWMutex
	// text is all keys, one after the other, keys where each of them is there. Neither changes but
	// at its end.
	text []byte
	keys []segmentKey
	// slots finds keys: a table of one more than their numbers, 0 where there is none, by the end
	// of their hashes or in the next free place (Knuth, "The Art of Computer Programming" 3, 6.4:
	// linear probing).
	slots []uint32
	// newest has, by the number of a key, one more than the number of its newest version, and
	// versions all of them.
	newest   []uint32
	versions []segmentVersion
	rows     swap
	// first is the index that the versions' are counted from.
	first uint64

	sorting sync.Mutex
	// order is the last order of keys that somebody asked for.
	order atomic.Pointer[order]
}

// segmentKey says where a key's text is, and the beginning of its hash.
type segmentKey struct{ at, size, hash uint32 }

// segmentVersion is one version of a row as it is kept. after is its index, counted from the
// segment's first. Its encoded row has size bytes at a place of the swap; older is one more than
// the number of the row's version before, 0 when there is none here.
type segmentVersion struct{ after, at, size, older uint32 }

const (
	// versionBytes is what a version takes in memory.
	versionBytes = 16
	// tombstones is added to the size of a tombstone's row. A row that was dropped without a trace
	// has no bytes.
	tombstones = 1 << 31
	// mostIndexes is how many indexes a segment spans at the most.
	mostIndexes = 1 << 31
)

// place is a version and the segment that has it.
type place struct {
	version
	in    *segment
	at    int64
	size  int
	older uint32
}

// place returns a version by one more than its number. It runs under mu.
func (s *segment) place(number uint32) place {
	v := s.versions[number-1]
	size := v.size &^ tombstones
	is := version{index: s.first + uint64(v.after), tombstone: v.size != size, dropped: size == 0}
	return place{is, s, int64(v.at), int(size), v.older}
}

// segmentSpills is into how many parts a segment is written to its file.
const segmentSpills = 12

// newSegment returns an empty segment with a swap, whose indexes begin with first. It is about to
// become like the one before it, if there is one.
func newSegment(rows swap, first uint64, before *segment) *segment {
	s, keys := &segment{rows: rows, first: first}, 0
	if before != nil {
		keys = len(before.keys)
		s.text = make([]byte, 0, len(before.text))
		s.keys = make([]segmentKey, 0, keys)
		s.newest = make([]uint32, 0, keys)
		s.versions = make([]segmentVersion, 0, len(before.versions))
	}
	s.widen(keys)
	return s
}

func (s *segment) add(last uint64, changes []*change, seed maphash.Seed) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last.Store(last)
	before := s.rows.size() + int64(len(s.text))
	for _, c := range changes {
		v := segmentVersion{after: uint32(c.index - s.first), at: uint32(s.rows.size())} //nolint:gosec // they span no more, and are far smaller
		if c.row != nil {
			if err := s.rows.append(c.row); err != nil {
				return err
			}
			if v.size = uint32(s.rows.size()) - v.at; c.row.GetDeleted() { //nolint:gosec // rows are far smaller
				v.size |= tombstones
			}
		}
		n := s.number(c.id, seed)
		v.older = s.newest[n]
		s.versions = append(s.versions, v)
		s.newest[n] = uint32(len(s.versions)) //nolint:gosec // segments have fewer
	}
	s.bytes.Add(s.rows.size() + int64(len(s.text)) - before + versionBytes*int64(len(changes)))
	return nil
}

// number returns the number of a key, which is new if it must be.
func (s *segment) number(id rowID, seed maphash.Seed) uint32 {
	start := len(s.text)
	s.text = appendRowKey(s.text, id.table, id.key)
	key := s.text[start:]
	hash := hashOf(seed, key)
	slot, n, ok := s.lookup(hash, key)
	if ok {
		s.text = s.text[:start]
		return n
	}
	n = uint32(len(s.keys))                                                                    //nolint:gosec // segments have fewer
	s.keys = append(s.keys, segmentKey{at: uint32(start), size: uint32(len(key)), hash: hash}) //nolint:gosec // segments are far smaller
	s.newest = append(s.newest, 0)
	if s.slots[slot] = n + 1; len(s.keys) > len(s.slots)/4*3 {
		s.widen(len(s.slots))
	}
	return n
}

// widen makes the table one for so many keys.
func (s *segment) widen(keys int) {
	const least = 64
	size := least
	for size/4*3 <= keys {
		size *= 2
	}
	s.slots = make([]uint32, size)
	for n, k := range s.keys {
		slot := k.hash % uint32(size) //nolint:gosec // segments have fewer
		for s.slots[slot] != 0 {
			slot = (slot + 1) % uint32(size) //nolint:gosec // segments have fewer
		}
		s.slots[slot] = uint32(n) + 1 //nolint:gosec // segments have fewer
	}
}

// lookup returns the slot and the number of a key, or else the slot where it belongs. It runs under
// mu.
func (s *segment) lookup(hash uint32, key []byte) (slot, number uint32, ok bool) {
	size := uint32(len(s.slots)) //nolint:gosec // segments have fewer
	for slot = hash % size; s.slots[slot] != 0; slot = (slot + 1) % size {
		n := s.slots[slot] - 1
		if k := s.keys[n]; k.hash == hash && bytes.Equal(s.text[k.at:k.at+k.size], key) {
			return slot, n, true
		}
	}
	return slot, 0, false
}

// hashOf returns the hash of a key. The seed is the process's: nobody outside can make keys that
// collide.
func hashOf(seed maphash.Seed, key []byte) uint32 {
	return uint32(maphash.Bytes(seed, key)) //nolint:gosec // half of it does
}

// seal says that nothing is going to be added, and returns a buffer for the next segment.
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

// find returns the version of a row that stands as of an index.
func (s *segment) find(hash uint32, key []byte, index uint64) (v place, ok bool) {
	s.reading(func() {
		var n uint32
		if _, n, ok = s.lookup(hash, key); ok {
			v, ok = s.standing(n, index)
		}
	})
	return v, ok
}

// standing returns the version of a key that stands as of an index. It runs under mu.
func (s *segment) standing(number uint32, index uint64) (place, bool) {
	for n := s.newest[number]; n > 0; n = s.versions[n-1].older {
		if v := s.place(n); v.index <= index {
			return v, true
		}
	}
	return place{}, false
}

// at is standing for whoever does not hold mu.
func (s *segment) at(number uint32, index uint64) (v place, ok bool) {
	s.reading(func() { v, ok = s.standing(number, index) })
	return v, ok
}

// from goes over a version, if there is one, and those of the same row that came before it, the
// newest first.
func (s *segment) from(v place, ok bool) iter.Seq[place] {
	return func(yield func(place) bool) {
		for ok && yield(v) {
			if ok = v.older > 0; ok {
				s.reading(func() { v = s.place(v.older) })
			}
		}
	}
}

// row returns the row of a version, nil for one that was dropped.
func (p place) row(keysOnly bool) (*registryv1.Record, error) {
	if p.dropped {
		return nil, nil
	}
	value, err := p.value(nil)
	if err != nil {
		return nil, err
	}
	return decodeRow(value, keysOnly)
}

// value returns the encoded row of a version, in the room given if that is enough. It is the
// caller's.
func (p place) value(room []byte) ([]byte, error) {
	var file *os.File
	value := slices.Grow(room[:0], p.size)[:p.size]
	p.in.reading(func() { file = p.in.rows.copy(value, p.at) })
	if file == nil {
		return value, nil
	}
	if _, err := file.ReadAt(value, p.at); err != nil {
		return nil, fmt.Errorf("read a row of the memtable: %w", err)
	}
	return value, nil
}

// order is the keys of a segment in their order, as far as there were keys when it was made.
type order struct {
	text    []byte
	keys    []segmentKey
	numbers []uint32
}

// key returns the key at a place of the order.
func (o *order) key(at int) []byte { return o.keyOf(o.numbers[at]) }

func (o *order) keyOf(number uint32) []byte {
	k := o.keys[number]
	return o.text[k.at : k.at+k.size]
}

// seek returns the place of the first key that is not below one.
func (o *order) seek(key []byte) int {
	return sort.Search(len(o.numbers), func(i int) bool { return bytes.Compare(o.key(i), key) >= 0 })
}

// inOrder returns the keys in their order. Those that came since somebody asked last are sorted,
// and put where they belong.
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
