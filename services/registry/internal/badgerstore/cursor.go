package badgerstore

import (
	"bytes"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/y"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// cursor goes over rows in key order, each in the version that stands as of an index: what the tail says of a row comes before
// what the files say. It is for one goroutine. Close it.
type cursor struct {
	files *badger.Iterator
	tail  standing
	since uint64

	// key, version and tombstone are of the row it stands on, if it stands on one.
	key       []byte
	version   uint64
	tombstone bool
	inTail    bool
}

// newCursor answers a cursor before the first row at or after a key and with a prefix, as of the index of a transaction. The layer
// must have been what lay above the files at that index or later. Rows last written at or before since are left out.
func newCursor(txn *badger.Txn, above *layer, prefix, from []byte, since uint64) *cursor {
	c := &cursor{
		files: txn.NewIterator(badger.IteratorOptions{
			PrefetchValues: false, // Values live in the tree: prefetching only copies them twice.
			PrefetchSize:   prefetch,
			Prefix:         prefix,
			SinceTs:        since,
		}),
		tail:  standing{versions: above.versions(), above: above.above, index: txn.ReadTs(), prefix: prefix},
		since: since,
	}
	c.files.Seek(from)
	c.tail.seek(from)
	return c
}

// next moves to the next row, and says whether there is one.
func (c *cursor) next() bool {
	if c.key != nil {
		c.leave()
	}
	for {
		order := c.order()
		switch {
		case order > 0 && !c.files.Valid():
			c.key = nil
			return false
		case order > 0:
			item := c.files.Item()
			c.key, c.version, c.tombstone, c.inTail = item.Key(), item.Version(), tombstone(item), false
			return true
		}
		c.key, c.version, c.tombstone, c.inTail = c.tail.key, c.tail.version, c.tail.value.UserMeta == tombstoneMeta, true
		if c.tail.value.Meta != droppedMeta && c.version > c.since {
			return true
		}
		c.leave()
	}
}

// order says which comes first: below 0 the tail, above 0 the files, 0 both.
func (c *cursor) order() int {
	switch {
	case !c.tail.valid:
		return 1
	case !c.files.Valid():
		return -1
	default:
		return bytes.Compare(c.tail.key, c.files.Item().Key())
	}
}

// leave moves past the row it stands on.
func (c *cursor) leave() {
	order := c.order()
	if order <= 0 {
		c.tail.next()
	}
	if order >= 0 {
		c.files.Next()
	}
}

// row answers the row it stands on; it is the caller's.
func (c *cursor) row(keysOnly bool) (r *registryv1.Record, err error) {
	if c.inTail {
		return decodeRow(c.tail.value.Value, keysOnly)
	}
	err = c.files.Item().Value(func(value []byte) (err error) {
		r, err = decodeRow(value, keysOnly)
		return err
	})
	return r, err
}

func (c *cursor) close() {
	c.files.Close()
	if c.tail.versions != nil {
		_ = c.tail.versions.Close() // Lists in memory have nothing to fail with.
	}
}

// standing goes over the rows of the tail, each in the version that stands as of an index.
type standing struct {
	versions y.Iterator // nil when the tail is empty
	prefix   []byte
	// index is that index; what is at or below above is in the files.
	index, above uint64

	valid   bool
	key     []byte
	version uint64
	value   y.ValueStruct
}

func (s *standing) seek(key []byte) {
	if s.versions == nil {
		return
	}
	s.versions.Seek(y.KeyWithTs(key, s.index))
	s.settle()
}

func (s *standing) next() {
	s.versions.Next()
	s.settle()
}

// settle moves on to the next row's version.
func (s *standing) settle() {
	for ; s.versions.Valid(); s.versions.Next() {
		versioned := s.versions.Key()
		key := y.ParseKey(versioned)
		if !bytes.HasPrefix(key, s.prefix) {
			break
		}
		version := y.ParseTs(versioned)
		if version > s.index || version <= s.above || s.key != nil && bytes.Equal(key, s.key) {
			continue
		}
		s.valid, s.key, s.version, s.value = true, key, version, s.versions.Value()
		return
	}
	s.valid = false
}
