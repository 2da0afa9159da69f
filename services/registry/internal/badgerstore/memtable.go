package badgerstore

import (
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tidwall/btree"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// memtable holds the versions of rows that batches of consecutive indexes wrote, sorted by key and,
// of one key, the newest first. Keys, and where each version is, lie in a tree in memory; the rows
// in a swap. One goroutine adds; any number read.
type memtable struct {
	tree *btree.BTreeG[entry]
	// last is the highest index that is here, 0 when there is none.
	last atomic.Uint64
	// bytes is about what is here, in memory and in the file.
	bytes atomic.Int64

	mu   sync.RWMutex
	rows swap
}

// entry is a version of a row. Its encoded row has size bytes at a place of the swap; one that was
// dropped has none.
type entry struct {
	key   string
	index uint64
	at    uint32
	size  uint32
}

const (
	// entryBytes is about what an entry takes beside its key: itself, in a node that is not full.
	entryBytes = 64
	// tombstones is added to the size of a tombstone's row.
	tombstones = 1 << 31
	// degree is that of the tree: nodes have up to 63 entries.
	degree = 32
)

func newMemtable(rows swap) *memtable {
	return &memtable{tree: btree.NewBTreeGOptions(entry.before, btree.Options{Degree: degree}), rows: rows}
}

func (e entry) before(other entry) bool {
	order := strings.Compare(e.key, other.key)
	return order < 0 || order == 0 && e.index > other.index
}

func (e entry) version() version {
	return version{index: e.index, tombstone: e.size&tombstones != 0, dropped: e.size == 0}
}

// add takes in the changes of a batch that ends at an index. Readers as of earlier ones do not see
// them.
func (m *memtable) add(last uint64, changes []*change) error {
	before, keys := m.rows.size(), 0
	for _, c := range changes {
		e := entry{key: string(rowKey(c.id.table, c.id.key)), index: c.index, at: uint32(m.rows.size())} //nolint:gosec // memtables are far smaller
		if c.row != nil {
			m.mu.Lock()
			err := m.rows.append(c.row)
			m.mu.Unlock()
			if err != nil {
				return err
			}
			if e.size = uint32(m.rows.size()) - e.at; c.row.GetDeleted() { //nolint:gosec // rows are far smaller
				e.size |= tombstones
			}
		}
		m.tree.Set(e)
		keys += len(e.key) + entryBytes
	}
	m.bytes.Add(m.rows.size() - before + int64(keys))
	m.last.Store(last)
	return nil
}

// freeze says that nothing is going to be added, and returns a buffer for the next memtable.
func (m *memtable) freeze() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rows.end()
}

// value returns the encoded row of a version, in the room given if that is enough. It is the
// caller's.
func (m *memtable) value(e entry, room []byte) ([]byte, error) {
	size := int(e.size &^ tombstones)
	value := slices.Grow(room[:0], size)[:size]
	m.mu.RLock()
	var file *os.File
	if size > 0 {
		file = m.rows.copy(value, int64(e.at))
	}
	m.mu.RUnlock()
	if file == nil {
		return value, nil
	}
	if _, err := file.ReadAt(value, int64(e.at)); err != nil {
		return nil, fmt.Errorf("read a row of the memtable: %w", err)
	}
	return value, nil
}

// row returns the row of a version, nil for one that was dropped.
func (m *memtable) row(e entry, keysOnly bool) (*registryv1.Record, error) {
	if e.size == 0 {
		return nil, nil
	}
	value, err := m.value(e, nil)
	if err != nil {
		return nil, err
	}
	return decodeRow(value, keysOnly)
}

// find returns the version of a row that stands as of an index.
func (m *memtable) find(key string, index uint64) (found entry, ok bool) {
	m.tree.Ascend(entry{key: key, index: index}, func(e entry) bool {
		if ok = e.key == key; ok {
			found = e
		}
		return false
	})
	return found, ok
}

// memtableRows is a source of the rows in a memtable, as it was when the source was made.
type memtableRows struct {
	from   *memtable
	rows   btree.IterG[entry]
	prefix string
	upTo   uint64
	valid  bool
	entry
	text []byte
}

// scan returns a source of the rows that stand as of an index.
func (m *memtable) scan(prefix, from []byte, upTo uint64) *memtableRows {
	r := &memtableRows{from: m, rows: m.tree.Copy().Iter(), prefix: string(prefix), upTo: upTo}
	r.valid = r.rows.Seek(entry{key: string(from), index: upTo})
	r.settle()
	return r
}

func (r *memtableRows) at() []byte {
	if !r.valid {
		return nil
	}
	return r.text
}

func (r *memtableRows) next() {
	left := r.key
	if r.valid = r.rows.Next(); r.valid && r.rows.Item().key == left {
		r.valid = r.rows.Seek(entry{key: left}) // No version has index 0: behind the last one.
	}
	r.settle()
}

// settle moves on to a version that stands as of the index, if it does not stand on one.
func (r *memtableRows) settle() {
	for r.valid {
		r.entry = r.rows.Item()
		if r.valid = strings.HasPrefix(r.key, r.prefix); !r.valid || r.index <= r.upTo {
			r.text = append(r.text[:0], r.key...)
			return
		}
		r.valid = r.rows.Seek(entry{key: r.key, index: r.upTo})
	}
}

func (r *memtableRows) stands() version { return r.version() }

func (r *memtableRows) row(keysOnly bool) (*registryv1.Record, error) {
	return r.from.row(r.entry, keysOnly)
}

// memtables are what lies above the files: the one that batches go into, and the one that is
// flushed next, nil when there is none.
type memtables struct{ active, immutable *memtable }

// newestFirst returns the memtables there are.
func (t *memtables) newestFirst() []*memtable {
	if t.immutable == nil {
		return []*memtable{t.active}
	}
	return []*memtable{t.active, t.immutable}
}

func (t *memtables) bytes() (sum int64) {
	for _, m := range t.newestFirst() {
		sum += m.bytes.Load()
	}
	return sum
}

// find returns the version of a row that stands as of an index, and the memtable that has it; nil
// when none has.
func (t *memtables) find(key []byte, index uint64) (entry, *memtable) {
	text := string(key)
	for _, m := range [...]*memtable{t.active, t.immutable} {
		if m == nil {
			break
		}
		if e, ok := m.find(text, index); ok {
			return e, m
		}
	}
	return entry{}, nil
}

// versions goes over the versions of a row at or below an index, the newest first.
func (t *memtables) versions(key []byte, index uint64) iter.Seq2[*memtable, entry] {
	return func(yield func(*memtable, entry) bool) {
		for _, m := range t.newestFirst() {
			done := false
			m.tree.Copy().Ascend(entry{key: string(key), index: index}, func(e entry) bool {
				if e.key != string(key) {
					return false
				}
				done = !yield(m, e)
				return !done
			})
			if done {
				return
			}
		}
	}
}
