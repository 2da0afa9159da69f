package badgerstore

import (
	"bytes"

	"github.com/dgraph-io/badger/v4"

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
		tail:  standing{rows: above.newMerge(from), above: above.above, index: txn.ReadTs(), prefix: prefix},
		since: since,
	}
	c.files.Seek(from)
	c.tail.settle()
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
		c.key, c.version, c.tombstone, c.inTail = c.tail.rows.key, c.tail.place.index, c.tail.tombstone, true
		if !c.tail.dropped && c.version > c.since {
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
		return bytes.Compare(c.tail.rows.key, c.files.Item().Key())
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
		return c.tail.row(keysOnly)
	}
	err = c.files.Item().Value(func(value []byte) (err error) {
		r, err = decodeRow(bytes.Clone(value), keysOnly)
		return err
	})
	return r, err
}

func (c *cursor) close() { c.files.Close() }

// standing goes over the rows of the tail, each in the version that stands as of an index.
type standing struct {
	rows   *merge
	prefix []byte
	// index is that index; what is at or below above is in the files.
	index, above uint64

	valid bool
	place
}

func (s *standing) next() {
	s.rows.next()
	s.settle()
}

// settle moves on to a row that has such a version, if it does not stand on one.
func (s *standing) settle() {
	for ; bytes.HasPrefix(s.rows.key, s.prefix) && s.rows.key != nil; s.rows.next() {
		for v := range s.rows.versions(s.index) {
			if s.valid = v.index > s.above; s.valid {
				s.place = v
				return
			}
			break
		}
	}
	s.valid = false
}
