package badgerstore

import (
	"hash/maphash"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
)

// tail holds the versions that are not in the files yet: all of them, from the index after the last flush to the applied one.
// The Raft log is their durable copy. Most rows are overwritten before they would have to be written down, so most versions
// never are.
//
// One goroutine adds and one at a time lets go; any number read.
type tail struct {
	// dir is where segments put their rows, and segmentBytes about how much goes into one.
	dir          string
	segmentBytes int64

	// mu is held by whoever changes which segments there are, or the last one of them.
	mu sync.Mutex
	// spare is a buffer for the next segment.
	spare []byte
	// now is what there is. What it points to does not change.
	now atomic.Pointer[layer]
	// bytes is what the segments hold.
	bytes atomic.Int64
}

// layer is what lies above the files: the versions above an index, in segments of consecutive indexes, the oldest first.
type layer struct {
	above    uint64
	segments []*segment
	seed     maphash.Seed
}

func newTail(dir string, segmentBytes int64) *tail {
	t := &tail{dir: dir, segmentBytes: segmentBytes}
	t.now.Store(&layer{seed: maphash.MakeSeed()})
	return t
}

// layer answers what there is now.
func (t *tail) layer() *layer { return t.now.Load() }

// set replaces what there is. It runs under mu.
func (t *tail) set(above uint64, segments []*segment) {
	t.now.Store(&layer{above, segments, t.layer().seed})
}

// add takes in the versions of a batch that ends at an index. Readers as of earlier ones do not see them.
func (t *tail) add(last uint64, changes []*change) error {
	if len(changes) == 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.layer()
	s := now.last()
	if s != nil && last-s.first >= mostIndexes {
		t.spare = s.seal()
	}
	if s == nil || s.sealed.Load() {
		s = newSegment(swap{dir: t.dir, spillBytes: int(t.segmentBytes / segmentSpills), buffer: t.spare}, changes[0].index, s)
		t.spare = nil
		t.set(now.above, append(slices.Clip(now.segments), s))
	}
	before := s.bytes.Load()
	err := s.add(last, changes, now.seed)
	t.bytes.Add(s.bytes.Load() - before)
	if s.bytes.Load() >= t.segmentBytes {
		t.spare = s.seal()
	}
	return err
}

// last answers the last segment, nil when there is none.
func (l *layer) last() *segment {
	if len(l.segments) == 0 {
		return nil
	}
	return l.segments[len(l.segments)-1]
}

// release says that the files have everything up to an index, and lets go of the segments that hold nothing above it.
func (t *tail) release(index uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.layer().segments
	kept := slices.IndexFunc(all, func(s *segment) bool { return s.last.Load() > index })
	if kept < 0 {
		kept = len(all)
	}
	for _, s := range all[:kept] {
		t.bytes.Add(-s.bytes.Load())
	}
	t.set(index, slices.Clone(all[kept:]))
}

// clear forgets everything: the files are as of an index.
func (t *tail) clear(index uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bytes.Store(0)
	t.set(index, nil)
}

// middle answers an index that has about half of what is here at or below it, 0 when there is but one segment.
func (t *tail) middle() uint64 {
	all := t.layer().segments
	half, sum := t.bytes.Load()/2, int64(0)
	for _, s := range all[:max(0, len(all)-1)] {
		if sum += s.bytes.Load(); sum >= half {
			return s.last.Load()
		}
	}
	return 0
}

// below answers about how many bytes are in segments that hold nothing above an index, and the last index of those.
func (t *tail) below(index uint64) (bytes int64, last uint64) {
	for _, s := range t.layer().segments {
		if s.last.Load() > index {
			break
		}
		bytes, last = bytes+s.bytes.Load(), s.last.Load()
	}
	return bytes, last
}

// find answers the version of a row that stands as of an index, and whether it is here.
func (l *layer) find(key []byte, index uint64) (place, bool) {
	hash := hashOf(l.seed, key)
	for _, s := range slices.Backward(l.segments) {
		if v, ok := s.find(hash, key, index); ok {
			return v, v.index > l.above
		}
	}
	return place{}, false
}

// versions goes over the versions of a row that are only here, at or below an index, the newest first.
func (l *layer) versions(key []byte, index uint64) iter.Seq[place] {
	hash := hashOf(l.seed, key)
	return func(yield func(place) bool) {
		for _, s := range slices.Backward(l.segments) {
			for v := range s.from(s.find(hash, key, index)) {
				if v.index <= l.above || !yield(v) {
					return
				}
			}
		}
	}
}
