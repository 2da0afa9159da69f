package badgerstore

import (
	"hash/maphash"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
)

// memtable holds the versions that are not in the files yet: all of them, from the index after the
// last flush to the applied one. The Raft log is their write-ahead log. It consists of segments, of
// which the last one grows; the others are immutable, and are flushed the oldest first.
//
// One goroutine adds and one at a time releases; any number read.
type memtable struct {
	// dir is where segments put their rows, and segmentBytes about how much goes into one.
	dir          string
	segmentBytes int64

	// mu is held by whoever changes which segments there are, or the last one of them.
	mu sync.Mutex
	// spare is a buffer for the next segment.
	spare []byte
	// now is what there is. What it points to does not change.
	now atomic.Pointer[segments]
	// bytes is what the segments hold.
	bytes atomic.Int64
}

// segments are what a memtable consists of: the versions above an index, in segments of consecutive
// indexes, the oldest first.
type segments struct {
	above uint64
	list  []*segment
	seed  maphash.Seed
}

func newMemtable(dir string, segmentBytes int64) *memtable {
	m := &memtable{dir: dir, segmentBytes: segmentBytes}
	m.now.Store(&segments{seed: maphash.MakeSeed()})
	return m
}

// segments returns what there is now.
func (m *memtable) segments() *segments { return m.now.Load() }

// set replaces what there is. It runs under mu.
func (m *memtable) set(above uint64, list []*segment) {
	m.now.Store(&segments{above, list, m.segments().seed})
}

// add takes in the versions of a batch that ends at an index. Readers as of earlier ones do not see
// them.
func (m *memtable) add(last uint64, changes []*change) error {
	if len(changes) == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.segments()
	s := now.last()
	if s != nil && last-s.first >= mostIndexes {
		m.spare = s.seal()
	}
	if s == nil || s.sealed.Load() {
		s = newSegment(swap{dir: m.dir, spillBytes: int(m.segmentBytes / segmentSpills), buffer: m.spare}, changes[0].index, s)
		m.spare = nil
		m.set(now.above, append(slices.Clip(now.list), s))
	}
	before := s.bytes.Load()
	err := s.add(last, changes, now.seed)
	m.bytes.Add(s.bytes.Load() - before)
	if s.bytes.Load() >= m.segmentBytes {
		m.spare = s.seal()
	}
	return err
}

// last returns the last segment, nil when there is none.
func (l *segments) last() *segment {
	if len(l.list) == 0 {
		return nil
	}
	return l.list[len(l.list)-1]
}

// release says that the files have everything up to an index, and lets go of the segments that hold
// nothing above it.
func (m *memtable) release(index uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.segments().list
	kept := slices.IndexFunc(all, func(s *segment) bool { return s.last.Load() > index })
	if kept < 0 {
		kept = len(all)
	}
	for _, s := range all[:kept] {
		m.bytes.Add(-s.bytes.Load())
	}
	m.set(index, slices.Clone(all[kept:]))
}

// clear forgets everything: the files are as of an index.
func (m *memtable) clear(index uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bytes.Store(0)
	m.set(index, nil)
}

// middle returns an index that has about half of what is here at or below it, 0 when there is but
// one segment.
func (m *memtable) middle() uint64 {
	all := m.segments().list
	half, sum := m.bytes.Load()/2, int64(0)
	for _, s := range all[:max(0, len(all)-1)] {
		if sum += s.bytes.Load(); sum >= half {
			return s.last.Load()
		}
	}
	return 0
}

// below returns about how many bytes are in segments that hold nothing above an index, and the last
// index of those.
func (m *memtable) below(index uint64) (bytes int64, last uint64) {
	for _, s := range m.segments().list {
		if s.last.Load() > index {
			break
		}
		bytes, last = bytes+s.bytes.Load(), s.last.Load()
	}
	return bytes, last
}

// find returns the version of a row that stands as of an index, and whether it is here.
func (l *segments) find(key []byte, index uint64) (place, bool) {
	hash := hashOf(l.seed, key)
	for _, s := range slices.Backward(l.list) {
		if v, ok := s.find(hash, key, index); ok {
			return v, v.index > l.above
		}
	}
	return place{}, false
}

// versions goes over the versions of a row that are only here, at or below an index, the newest
// first.
func (l *segments) versions(key []byte, index uint64) iter.Seq[place] {
	hash := hashOf(l.seed, key)
	return func(yield func(place) bool) {
		for _, s := range slices.Backward(l.list) {
			for v := range s.from(s.find(hash, key, index)) {
				if v.index <= l.above || !yield(v) {
					return
				}
			}
		}
	}
}
