package badgerstore

import (
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// view is the state as of one index.
type view struct {
	db    *badger.DB
	index uint64
	// reading is the transaction that reads the files; nil as long as the cache knew everything.
	reading *badger.Txn
	rows    *rowCache
	// floor is the index after which every version of every row was known when the view began.
	floor uint64
	// oldest answers the oldest index that can be read now.
	oldest func() uint64
}

// lost answers a fault when the view has fallen out of the window: what the store says of its index cannot be trusted.
func (v *view) lost() error {
	if oldest := v.oldest(); v.index < oldest {
		return record.Compacted(v.index, oldest)
	}
	return nil
}

var _ record.Reader = (*view)(nil)

func (v *view) txn() *badger.Txn {
	if v.reading == nil {
		v.reading = v.db.NewTransactionAt(v.index, false)
	}
	return v.reading
}

// discard ends the view. It may be called twice.
func (v *view) discard() {
	if v.reading != nil {
		v.reading.Discard()
	}
}

func (v *view) Index() uint64 { return v.index }

func (v *view) Get(table registryv1.Table, key string) (*registryv1.Record, error) {
	id := rowID{table, key}
	if r, known := v.rows.get(id, v.index); known {
		return r, nil
	}
	r, err := v.find(id)
	if err == nil {
		err = v.lost()
	}
	if err != nil {
		return nil, err
	}
	v.rows.fill(id, r, v.index)
	return r, nil
}

// find looks a row up in the files; nil when it is not there.
func (v *view) find(id rowID) (r *registryv1.Record, err error) {
	item, err := v.txn().Get(rowKey(id.table, id.key))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	if err == nil {
		err = item.Value(func(value []byte) (err error) {
			r, err = decodeRow(value, false)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read %s row: %w", id.table, err)
	}
	return r, nil
}

// The first rows of a scan are read ahead one by one; long scans get more.
const prefetch = 64

func (v *view) Scan(table registryv1.Table, o record.ScanOptions, fn func(*registryv1.Record) bool) error {
	prefix := rowKey(table, o.Prefix)
	it := v.txn().NewIterator(badger.IteratorOptions{
		PrefetchValues: false, // Values live in the tree: prefetching only copies them twice.
		PrefetchSize:   prefetch,
		Prefix:         prefix,
		SinceTs:        o.Since,
	})
	defer it.Close()
	// It holds on to the files from here on.
	if err := v.lost(); err != nil {
		return err
	}
	for it.Seek(rowKey(table, max(o.From, o.Prefix))); it.Valid(); it.Next() {
		if tombstone(it.Item()) && !o.Deleted {
			continue
		}
		var r *registryv1.Record
		err := it.Item().Value(func(value []byte) (err error) {
			r, err = decodeRow(value, o.KeysOnly)
			return err
		})
		if err != nil {
			return fmt.Errorf("scan %s: %w", table, err)
		}
		if !fn(r) {
			return nil
		}
	}
	return nil
}

// History implements record.Reader. Compaction takes the versions at or below the floor when it comes to
// it, so they are left out even while they are there: servers answer alike.
func (v *view) History(table registryv1.Table, key string, fn func(*registryv1.Record) bool) (uint64, error) {
	it := v.txn().NewKeyIterator(rowKey(table, key), badger.IteratorOptions{AllVersions: true})
	defer it.Close()
	if err := v.lost(); err != nil {
		return 0, err
	}
	first := true
	for it.Rewind(); it.Valid(); it.Next() {
		item := it.Item()
		if item.IsDeletedOrExpired() || item.Version() <= v.floor && !first {
			break // What was dropped without a trace begins anew.
		}
		first = false
		var r *registryv1.Record
		err := item.Value(func(value []byte) (err error) {
			r, err = decodeRow(value, false)
			return err
		})
		if err != nil {
			return 0, fmt.Errorf("read the history of a %s row: %w", table, err)
		}
		if !fn(r) {
			break
		}
	}
	return v.floor, nil
}
