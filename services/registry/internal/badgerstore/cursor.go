package badgerstore

import (
	"bytes"

	"github.com/dgraph-io/badger/v4"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// cursor goes over rows in key order, each in the version that stands as of an index: what the
// memtables say of a row comes before what the files say. It is for one goroutine. Close it.
type cursor struct {
	sources []source
	// now is the source of the row it stands on.
	now    source
	since  uint64
	badger *badger.Iterator

	// key and version are of the row it stands on, if it stands on one.
	key []byte
	version
}

// source goes over rows in key order, each in the version that stands as of an index.
type source interface {
	// at returns the key of the row it stands on, nil after the last one. It is good until next.
	at() []byte
	next()
	stands() version
	// row returns the row, which is the caller's.
	row(keysOnly bool) (*registryv1.Record, error)
}

// version is what is known of one version of a row beside the row.
type version struct {
	index     uint64
	tombstone bool
	dropped   bool // without a trace
}

// newCursor returns a cursor before the first row at or after a key and with a prefix, as of the
// index of a transaction. The memtables must have been read at that index or later, and
// before the transaction began. Rows last written at or before since are left out.
func newCursor(txn *badger.Txn, above *memtables, prefix, from []byte, since uint64) *cursor {
	c := &cursor{
		badger: txn.NewIterator(badger.IteratorOptions{
			PrefetchValues: false, // Values live in the tree: prefetching only copies them twice.
			PrefetchSize:   prefetch,
			Prefix:         prefix,
			SinceTs:        since,
		}),
		since: since,
	}
	c.badger.Seek(from)
	for _, m := range above.newestFirst() {
		c.sources = append(c.sources, m.scan(prefix, from, txn.ReadTs()))
	}
	c.sources = append(c.sources, badgerRows{c.badger})
	return c
}

// next moves to the next row, and reports whether there is one.
func (c *cursor) next() bool {
	if c.key != nil {
		c.leave()
	}
	for c.settle() {
		if c.version = c.now.stands(); !c.dropped && c.index > c.since {
			return true
		}
		c.leave()
	}
	return false
}

// settle stands it on the first of the rows that its sources stand on, and reports whether there is
// one.
func (c *cursor) settle() bool {
	c.key = nil
	for _, s := range c.sources {
		if key := s.at(); key != nil && (c.key == nil || bytes.Compare(key, c.key) < 0) {
			c.now, c.key = s, key
		}
	}
	return c.key != nil
}

// leave moves past the row it stands on.
func (c *cursor) leave() {
	for _, s := range c.sources {
		if s != c.now && bytes.Equal(s.at(), c.key) {
			s.next()
		}
	}
	c.now.next() // The key is its own, and good until now.
}

// row returns the row it stands on; it is the caller's.
func (c *cursor) row(keysOnly bool) (*registryv1.Record, error) { return c.now.row(keysOnly) }

func (c *cursor) close() { c.badger.Close() }

// badgerRows is a source of the rows in Badger.
type badgerRows struct{ *badger.Iterator }

func (b badgerRows) at() []byte {
	if !b.Valid() {
		return nil
	}
	return b.Item().Key()
}

func (b badgerRows) next() { b.Next() }

func (b badgerRows) stands() version {
	return version{index: b.Item().Version(), tombstone: tombstone(b.Item())}
}

func (b badgerRows) row(keysOnly bool) (r *registryv1.Record, err error) {
	err = b.Item().Value(func(value []byte) (err error) {
		r, err = decodeRow(value, keysOnly)
		return err
	})
	return r, err
}
