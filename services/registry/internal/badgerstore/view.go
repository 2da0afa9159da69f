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
	// tables are the memtables when the view began, before the transaction did: what a flush takes
	// out of them is in the files before that.
	tables *memtables
	rows   *rowCache
	// watermark is the index after which every version of every row was known when the view began.
	watermark uint64
	// oldest returns the oldest index that can be read now.
	oldest func() uint64
}

// lost returns a fault when the view has fallen out of the window: what the store says of its index
// cannot be trusted.
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

// find looks a row up in the memtables and the files; nil when it is not there.
func (v *view) find(id rowID) (r *registryv1.Record, err error) {
	key := rowKey(id.table, id.key)
	if e, table := v.tables.find(key, v.index); table != nil {
		return table.row(e, false)
	}
	item, err := v.txn().Get(key)
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
	c := newCursor(v.txn(), v.tables, rowKey(table, o.Prefix), rowKey(table, max(o.From, o.Prefix)), o.Since)
	defer c.close()
	// It holds on to the files from here on.
	if err := v.lost(); err != nil {
		return err
	}
	for c.next() {
		if c.tombstone && !o.Deleted {
			continue
		}
		r, err := c.row(o.KeysOnly)
		if err != nil {
			return fmt.Errorf("scan %s: %w", table, err)
		}
		if !fn(r) {
			return nil
		}
	}
	return nil
}

// History implements record.Reader. Compaction takes the versions at or below the watermark when it
// comes to it, so they are left out even while they are there: all servers return the same.
func (v *view) History(table registryv1.Table, key string, fn func(*registryv1.Record) bool) (uint64, error) {
	id := rowKey(table, key)
	it := v.txn().NewKeyIterator(id, badger.IteratorOptions{AllVersions: true})
	defer it.Close()
	if err := v.lost(); err != nil {
		return 0, err
	}
	h := historian{watermark: v.watermark, fn: fn}
	err := h.memtables(v.tables, id, v.index)
	if err == nil {
		err = h.files(it)
	}
	if err != nil {
		return 0, fmt.Errorf("read the history of a %s row: %w", table, err)
	}
	return v.watermark, nil
}

// historian goes through the versions of a row, the newest first.
type historian struct {
	watermark uint64
	fn        func(*registryv1.Record) bool
	// last is the version it came to, 0 before the first one; done says that there are no more to
	// be had.
	last uint64
	done bool
}

func (h *historian) memtables(above *memtables, key []byte, index uint64) error {
	for table, e := range above.versions(key, index) {
		row, err := table.row(e, false)
		if err != nil {
			return err
		}
		if h.take(e.index, row); h.done {
			return nil
		}
	}
	return nil
}

func (h *historian) files(it *badger.Iterator) error {
	for it.Rewind(); !h.done && it.Valid(); it.Next() {
		item := it.Item()
		if h.last != 0 && item.Version() >= h.last {
			continue // What was in a memtable when it was looked at has been written to the files since.
		}
		var row *registryv1.Record
		if !item.IsDeletedOrExpired() {
			value, err := item.ValueCopy(nil)
			if err == nil {
				row, err = decodeRow(value, false)
			}
			if err != nil {
				return fmt.Errorf("read version %d: %w", item.Version(), err)
			}
		}
		h.take(item.Version(), row)
	}
	return nil
}

// take shows one version. What was dropped without a trace, nil, begins anew.
func (h *historian) take(version uint64, row *registryv1.Record) {
	if row == nil || version <= h.watermark && h.last != 0 {
		h.done = true
		return
	}
	h.last = version
	h.done = !h.fn(row)
}
