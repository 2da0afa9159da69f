package badgerstore

import (
	"bytes"
	"errors"

	"github.com/dgraph-io/badger/v4"

	"konsul.dev/services/registry/internal/steps"
)

// rewriting is a flush's making of the next file of the rows kept apart: what the one before had, with what the tail has of them up to an index, but for what
// nobody may ask for as of the floor or later. That is what is below the version that stands as of the floor, and this one, too, if it is a tombstone or says
// that there is no row.
type rewriting struct {
	index, floor uint64
	// synced is the index of the flush before: the file has all up to there.
	synced uint64
	tail   *merge
	file   *entries
	into   *apartWriter
	// badger is where earlier versions put such rows, of which more are not to come. There they stay until they change.
	badger   *badger.Iterator
	toBadger *writer

	// key is that of the row whose turn it is, and below says that all that comes next of it is below the one that stands as of the floor.
	key    []byte
	below  bool
	value  []byte
	purged uint64
}

// rewrite answers the file of the rows kept apart as it is after a flush of a layer, which is the one before if the flush changes nothing, and how many
// tombstones it let go. It tells Badger of rows there that change.
func (s *Store) rewrite(l *layer, index, floor uint64, toBadger *writer) (_ *apart, purged uint64, err error) {
	before := s.apart.Load()
	r := &rewriting{index: index, floor: floor, synced: s.synced.Load(), tail: l.newMerge([]byte{apartTable}), toBadger: toBadger}
	if !r.isDue() && floor < before.tombstone {
		return before, 0, nil // What else there is to let go is no more than the last flush left.
	}
	txn := s.db.NewTransactionAt(index, false)
	defer txn.Discard()
	r.badger = txn.NewIterator(badger.IteratorOptions{Prefix: []byte{apartTable}})
	defer r.badger.Close()
	r.badger.Rewind()
	if r.into, err = newApartWriter(s.opts.Dir, index); err != nil {
		return nil, 0, err
	}
	defer r.into.cancel()
	r.file = before.from(nil)
	for r.begin() {
		if err := errors.Join(r.fromTail(), r.fromFile()); err != nil {
			return nil, 0, err
		}
	}
	if r.file.err != nil {
		return nil, 0, r.file.err
	}
	after, err := r.into.finish()
	if err != nil {
		return nil, 0, err
	}
	s.opts.Step.At(steps.FlushedApart)
	return after, r.purged, nil
}

// tailKey answers the key of the row that comes next in the tail, nil when there is none.
func (r *rewriting) tailKey() []byte {
	if r.tail.key == nil || r.tail.key[0] != apartTable {
		return nil
	}
	return r.tail.key
}

// isDue says whether the tail has anything that the file has not, and passes over what is before that.
func (r *rewriting) isDue() bool {
	for ; r.tailKey() != nil; r.tail.next() {
		for v := range r.tail.versions(r.index) {
			if v.index > r.synced {
				return true
			}
			break
		}
	}
	return false
}

// begin turns to the next row, and says whether there is one.
func (r *rewriting) begin() bool {
	key := r.tailKey()
	if r.file.valid && (key == nil || bytes.Compare(r.file.key, key) < 0) {
		key = r.file.key
	}
	r.key, r.below = append(r.key[:0], key...), false
	return key != nil
}

func (r *rewriting) fromTail() error {
	if !bytes.Equal(r.tailKey(), r.key) {
		return nil
	}
	for v := range r.tail.versions(r.index) {
		if v.index <= r.synced || r.below {
			break
		}
		if r.isInBadger() {
			if err := r.toBadger.drop(bytes.Clone(r.key), v.index); err != nil {
				return err
			}
		}
		var err error
		if r.value, err = v.value(r.value); err != nil {
			return err
		}
		if err := r.take(v.version, r.value); err != nil {
			return err
		}
	}
	r.tail.next()
	return nil
}

func (r *rewriting) fromFile() error {
	for ; r.file.valid && bytes.Equal(r.file.key, r.key); r.file.next() {
		if err := r.take(r.file.version, r.file.value); err != nil {
			return err
		}
	}
	return nil
}

// take takes in a version of the row, or leaves it out.
func (r *rewriting) take(v version, value []byte) error {
	if r.below {
		return nil
	}
	r.below = v.index <= r.floor
	if r.below && v.tombstone {
		r.purged++
	}
	if r.below && (v.tombstone || v.dropped) {
		return nil
	}
	return r.into.put(r.key, v, value)
}

// isInBadger says whether Badger has the row. It is asked of one key after the other.
func (r *rewriting) isInBadger() bool {
	if r.badger.Valid() && bytes.Compare(r.badger.Item().Key(), r.key) < 0 {
		r.badger.Seek(r.key)
	}
	return r.badger.Valid() && bytes.Equal(r.badger.Item().Key(), r.key)
}
