package badgerstore

import (
	"encoding/binary"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4/skl"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// tail holds the versions that are not in the files yet: all of them, from the index after the last flush to the applied one, in
// the order of the files. The Raft log is their durable copy. Most rows are overwritten before they would have to be
// written down, so most versions never are.
//
// One goroutine adds and one at a time lets go; any number read.
type tail struct {
	// segmentBytes is the size of a segment.
	segmentBytes int64

	// mu is held by whoever changes which segments there are, or the last one of them.
	mu sync.Mutex
	// now is what there is. What it points to does not change.
	now atomic.Pointer[layer]
	// bytes is what the segments hold.
	bytes atomic.Int64
}

// layer is what lies above the files: the versions above an index, in segments of consecutive indexes, the oldest first.
type layer struct {
	above    uint64
	segments []*segment
}

// segment holds the versions of a span of indexes: of each of them all versions, or none.
type segment struct {
	rows *skl.Skiplist
	keys filter
	room int64
	// last is the highest index that is here.
	last atomic.Uint64
}

// droppedMeta marks, in a version's Meta, that the row was dropped without a trace.
const droppedMeta = 1

func newTail(segmentBytes int64) *tail {
	t := &tail{segmentBytes: segmentBytes}
	t.now.Store(&layer{})
	return t
}

// layer answers what there is now.
func (t *tail) layer() *layer { return t.now.Load() }

// add takes in the versions of a batch that ends at an index. Readers as of earlier ones do not see them.
func (t *tail) add(last uint64, changes []*change, buffer []byte) ([]byte, error) {
	room := int64(0)
	for _, c := range changes {
		room += c.room()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.segment(room)
	s.last.Store(last)
	before := s.rows.MemSize()
	for _, c := range changes {
		buffer = appendVersionKey(buffer[:0], c.id, c.index)
		key := len(buffer)
		version := y.ValueStruct{Meta: droppedMeta}
		if c.row != nil {
			var err error
			if buffer, err = appendRow(buffer, c.row); err != nil {
				return buffer, err
			}
			version = y.ValueStruct{Value: buffer[key:], UserMeta: metaOf(c.row)}
		}
		s.keys.add(hashOf(y.ParseKey(buffer[:key])))
		s.rows.Put(buffer[:key], version)
	}
	t.bytes.Add(s.rows.MemSize() - before)
	return buffer, nil
}

// segment answers the last segment if there is room in it, or else a new one.
func (t *tail) segment(room int64) *segment {
	now := t.layer()
	all := now.segments
	if n := len(all); n > 0 && all[n-1].rows.MemSize()+room <= all[n-1].room {
		return all[n-1]
	}
	// A list's arena has a node of its own, and none may end closer to the arena's end than the largest node is long.
	const spare = int64(2*skl.MaxNodeSize + 64)
	size := max(t.segmentBytes, room+spare)
	s := &segment{rows: skl.NewSkiplist(size), keys: newFilter(size), room: size - int64(skl.MaxNodeSize)}
	t.now.Store(&layer{now.above, append(slices.Clip(all), s)})
	return s
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
		t.bytes.Add(-s.rows.MemSize())
	}
	t.now.Store(&layer{index, slices.Clone(all[kept:])})
}

// clear forgets everything: the files are as of an index.
func (t *tail) clear(index uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bytes.Store(0)
	t.now.Store(&layer{above: index})
}

// middle answers an index that has about half of what is here at or below it, 0 when there is but one segment.
func (t *tail) middle() uint64 {
	all := t.layer().segments
	half, sum := t.bytes.Load()/2, int64(0)
	for _, s := range all[:max(0, len(all)-1)] {
		if sum += s.rows.MemSize(); sum >= half {
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
		bytes, last = bytes+s.rows.MemSize(), s.last.Load()
	}
	return bytes, last
}

// versions goes over all versions of all rows in the segments, in the order of the files: by row, the newest version first. There are some that
// are in the files as well. It answers nil when there are no segments. Close it.
func (l *layer) versions() y.Iterator {
	all := make([]y.Iterator, len(l.segments))
	for i, s := range l.segments {
		all[i] = s.rows.NewUniIterator(false)
	}
	return table.NewMergeIterator(all, false)
}

// find answers the version of a row that stands as of the index in its key, and whether it is here.
func (l *layer) find(versionKey []byte) (y.ValueStruct, bool) {
	hash := hashOf(y.ParseKey(versionKey))
	for _, s := range slices.Backward(l.segments) {
		if !s.keys.may(hash) {
			continue
		}
		if v := s.rows.Get(versionKey); v.Version > 0 {
			return v, v.Version > l.above
		}
	}
	return y.ValueStruct{}, false
}

// room is at least what a version takes in an arena.
func (c *change) room() int64 {
	const (
		aligned = 8
		table   = 1
		version = 8
		metas   = 3
	)
	return int64(skl.MaxNodeSize + aligned + table + len(c.id.key) + version + metas + rowSize(c.row))
}

// appendVersionKey appends the key of one version of a row, as Badger writes it (y.KeyWithTs): newer ones sort first.
func appendVersionKey(b []byte, id rowID, index uint64) []byte {
	return binary.BigEndian.AppendUint64(appendRowKey(b, id.table, id.key), math.MaxUint64-index)
}

// rowSize is how long appendRow's answer is, 0 when there is no row.
func rowSize(row *registryv1.Record) int {
	if row == nil {
		return 0
	}
	return row.SizeVT()
}
