package badgerstore

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/steps"
)

// Batch collects what consecutive commands change, and writes it as one. It reads the state as of
// the batch's start and, above it, what the batch itself has written.
type Batch struct {
	s    *Store
	base *view
	last uint64
	batchRows
}

// batchRows are the rows of a batch. What one took to keep them, the next takes over.
type batchRows struct {
	dirty byRow[*change]
	order []*change
	// changes are what order points to, as long as they are not too many.
	changes []change
}

// change is one version of a row; row is nil when it was dropped.
type change struct {
	id    rowID
	index uint64
	row   *registryv1.Record
}

// Begin starts a batch on top of what is applied. End it with Discard, after Commit as well.
// Batches are for one goroutine.
func (s *Store) Begin() *Batch {
	applied := s.applied.Load()
	rows := s.spare
	if s.spare = (batchRows{}); rows.changes == nil {
		rows.order, rows.changes = make([]*change, 0, usualRows), make([]change, 0, usualRows)
	}
	return &Batch{
		s: s, last: applied, batchRows: rows,
		base: &view{db: s.db, index: applied, tables: s.tables.Load(), rows: s.rows, oldest: s.Oldest},
	}
}

// At returns the transaction of the command at a Raft index, which must be above all before.
func (b *Batch) At(index uint64) *Tx {
	b.last = index
	return &Tx{b: b, index: index}
}

// Changes returns the rows the batch wrote so far, in commit order, without those that were
// dropped.
func (b *Batch) Changes() []*registryv1.Record {
	rows := make([]*registryv1.Record, 0, len(b.order))
	for _, c := range b.order {
		if c.row != nil {
			rows = append(rows, c.row)
		}
	}
	return rows
}

// Discard drops the batch. It does no harm after Commit.
func (b *Batch) Discard() {
	b.base.discard()
	if len(b.order) <= usualRows {
		b.dirty.clear()
		clear(b.order)
		clear(b.changes)
		b.s.spare = batchRows{b.dirty, b.order[:0], b.changes[:0]}
	}
	b.batchRows = batchRows{}
}

// usualRows is up to how many rows a batch has as a rule.
const usualRows = 1 << 10

// Commit takes the batch in and makes it visible. It waits for the files when they are far behind.
func (b *Batch) Commit() (err error) {
	b.base.discard()
	b.s.window.add(b.last, b.bytes())
	b.s.opts.Step.At(steps.Applying)
	if err = b.s.add(b.last, b.order); err == nil {
		err = b.s.reached.note(b.last) // Before anybody sees it.
	}
	if err != nil {
		return fmt.Errorf("write batch up to index %d: %w", b.last, err)
	}
	b.s.opts.Step.At(steps.Applied)
	b.s.rows.commit(b.last, b.order)
	b.s.applied.Store(b.last)
	return b.s.spill()
}

// bytes is about what the batch adds to the store.
func (b *Batch) bytes() uint64 {
	size := 0
	for _, c := range b.order {
		size += len(c.id.key) + len(c.row.GetValue()) + rowOnDisk
	}
	return uint64(size) //nolint:gosec // a sum of lengths
}

// rowOnDisk is about what a row occupies beside its key and value.
const rowOnDisk = 100

// Tx is the part of a batch that belongs to one command.
type Tx struct {
	b     *Batch
	index uint64
}

// Get returns a row as the command finds it. The caller must not change it.
func (t *Tx) Get(table registryv1.Table, key string) (*registryv1.Record, error) {
	if c, ok := t.b.dirty.get(rowID{table, key}); ok {
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
	if c, ok := t.b.dirty.get(id); ok && c.index == t.index {
		c.row = row // Written twice by one command: only the last one counts.
		return
	}
	c := t.b.fresh()
	*c = change{id: id, index: t.index, row: row}
	t.b.dirty.set(id, c)
	t.b.order = append(t.b.order, c)
}

// fresh returns a change that is not in use.
func (b *Batch) fresh() *change {
	if len(b.changes) == cap(b.changes) {
		return &change{}
	}
	b.changes = b.changes[:len(b.changes)+1]
	return &b.changes[len(b.changes)-1]
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
		if _, dirty := t.b.dirty.get(rowID{table, r.GetKey()}); dirty {
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
	for key, c := range t.b.dirty.table(table) {
		if strings.HasPrefix(key, o.Prefix) && key >= o.From {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b *change) int { return cmp.Compare(a.id.key, b.id.key) })
	return out
}
