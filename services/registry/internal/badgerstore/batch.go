package badgerstore

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// Batch collects what consecutive commands change, and writes it as one. It reads the state as of
// the batch's start and, above it, what the batch itself has written.
type Batch struct {
	s     *Store
	base  *view
	last  uint64
	dirty map[rowID]*change
	order []*change
}

type rowID struct {
	table registryv1.Table
	key   string
}

// change is one version of a row; row is nil when it was dropped.
type change struct {
	id    rowID
	index uint64
	row   *registryv1.Record
}

// Begin starts a batch on top of what is applied. End it with Commit or Discard.
func (s *Store) Begin() *Batch {
	applied := s.applied.Load()
	return &Batch{
		s: s, last: applied, dirty: map[rowID]*change{},
		base: &view{txn: s.db.NewTransactionAt(applied, false), index: applied},
	}
}

// At answers the transaction of the command at a Raft index, which must be above all before.
func (b *Batch) At(index uint64) *Tx {
	b.last = index
	return &Tx{b: b, index: index}
}

// Changes answers the rows the batch wrote so far, in commit order, without those that were dropped.
func (b *Batch) Changes() []*registryv1.Record {
	rows := make([]*registryv1.Record, 0, len(b.order))
	for _, c := range b.order {
		if c.row != nil {
			rows = append(rows, c.row)
		}
	}
	return rows
}

// Discard drops the batch.
func (b *Batch) Discard() { b.base.txn.Discard() }

// Commit writes the batch and makes it visible.
func (b *Batch) Commit() error {
	b.base.txn.Discard()
	if err := b.write(); err != nil {
		return fmt.Errorf("write batch up to index %d: %w", b.last, err)
	}
	// Only when all of the batch is there may the store say so: a split batch is not atomic.
	txn := b.s.db.NewTransactionAt(b.last, true)
	defer txn.Discard()
	if err := txn.Set(appliedKey(), encodeIndex(b.last)); err != nil {
		return fmt.Errorf("write applied index: %w", err)
	}
	if err := txn.CommitAt(b.last, nil); err != nil {
		return fmt.Errorf("commit applied index %d: %w", b.last, err)
	}
	b.s.applied.Store(b.last)
	b.s.discard()
	return nil
}

func (b *Batch) write() error {
	if len(b.order) == 0 {
		return nil
	}
	wb := b.s.db.NewManagedWriteBatch()
	defer wb.Cancel()
	for _, c := range b.order {
		if c.row == nil {
			if err := wb.DeleteAt(rowKey(c.id.table, c.id.key), c.index); err != nil {
				return err
			}
			continue
		}
		entry, err := rowEntry(c.row)
		if err != nil {
			return err
		}
		if err := wb.SetEntryAt(entry, c.index); err != nil {
			return err
		}
	}
	return wb.Flush()
}

// Tx is the part of a batch that belongs to one command.
type Tx struct {
	b     *Batch
	index uint64
}

// Get answers a row as the command finds it. The caller must not change it.
func (t *Tx) Get(table registryv1.Table, key string) (*registryv1.Record, error) {
	if c, ok := t.b.dirty[rowID{table, key}]; ok {
		return c.row, nil
	}
	return t.b.base.Get(table, key)
}

// Put writes a row at the command's index.
func (t *Tx) Put(r *registryv1.Record) error {
	if err := checkTable(r.GetTable()); err != nil {
		return err
	}
	t.record(rowID{r.GetTable(), r.GetKey()}, r)
	return nil
}

// Drop removes a row without leaving a tombstone.
func (t *Tx) Drop(table registryv1.Table, key string) error {
	if err := checkTable(table); err != nil {
		return err
	}
	t.record(rowID{table, key}, nil)
	return nil
}

func (t *Tx) record(id rowID, row *registryv1.Record) {
	if c, ok := t.b.dirty[id]; ok && c.index == t.index {
		c.row = row // Written twice by one command: only the last one counts.
		return
	}
	c := &change{id: id, index: t.index, row: row}
	t.b.dirty[id] = c
	t.b.order = append(t.b.order, c)
}

// Scan merges what is stored with what the batch has written.
func (t *Tx) Scan(table registryv1.Table, o record.ScanOptions, fn func(*registryv1.Record) bool) error {
	pending := t.pending(table, o)
	stopped := false
	emit := func(c *change) bool {
		if c.row == nil || c.row.GetDeleted() && !o.Deleted || c.row.GetModifyIndex() <= o.Since {
			return true
		}
		stopped = !fn(proto.CloneOf(c.row))
		return !stopped
	}
	err := t.b.base.Scan(table, o, func(r *registryv1.Record) bool {
		for len(pending) > 0 && pending[0].id.key < r.GetKey() {
			if !emit(pending[0]) {
				return false
			}
			pending = pending[1:]
		}
		if _, dirty := t.b.dirty[rowID{table, r.GetKey()}]; dirty {
			return true // Its pending version comes in its own turn.
		}
		stopped = !fn(r)
		return !stopped
	})
	for i := 0; err == nil && !stopped && i < len(pending); i++ {
		emit(pending[i])
	}
	return err
}

func (t *Tx) pending(table registryv1.Table, o record.ScanOptions) []*change {
	var out []*change
	for id, c := range t.b.dirty {
		if id.table == table && strings.HasPrefix(id.key, o.Prefix) && id.key >= o.From {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b *change) int { return cmp.Compare(a.id.key, b.id.key) })
	return out
}
