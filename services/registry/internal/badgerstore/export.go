package badgerstore

import (
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// errReplaced ends an export that a restore waits for.
var errReplaced = fault.New(fault.Aborted, record.ReasonReplaced, "the state was replaced while it was read").WithRemedy("try again")

// Export is the state as of one index, in table and key order, for whoever takes its time. It keeps
// files from being reclaimed until Close, and a restore waiting until the next Next or Close.
type Export struct {
	s     *Store
	txn   *badger.Txn
	rows  *cursor
	index uint64
	since uint64
	stop  <-chan struct{}
	done  bool
}

// Export begins to read the state as it is now: all rows, or with since everything that changed
// after that index, tombstones included. since must not lie below the watermark.
func (s *Store) Export(since uint64) (*Export, error) {
	stop := s.replacement() // Before the gate: a restore that comes between must not wait for an export that nobody told.
	s.gate.RLock()
	if s.closed {
		s.gate.RUnlock()
		return nil, errClosed
	}
	// The cursor holds on to the files as they are here and now: what is discarded later is still
	// there for it.
	index := s.applied.Load()
	tables := s.tables.Load()
	txn := s.db.NewTransactionAt(index, false)
	return &Export{s: s, txn: txn, rows: newCursor(txn, tables, nil, nil, since), index: index, since: since, stop: stop}, nil
}

// Index is the index whose state it is.
func (e *Export) Index() uint64 { return e.index }

// Replaced is closed when a restore waits for the export to end.
func (e *Export) Replaced() <-chan struct{} { return e.stop }

// Next returns the next row or tombstone, nil after the last one.
func (e *Export) Next() (*registryv1.Record, error) {
	for e.rows.next() {
		select {
		case <-e.stop:
			return nil, errReplaced
		default:
		}
		if e.rows.key[0] == metaTable || e.since == 0 && e.rows.tombstone {
			continue
		}
		row, err := e.rows.row(false)
		if err != nil {
			return nil, fmt.Errorf("export row: %w", err)
		}
		return row, nil
	}
	return nil, nil
}

// Close lets go of the state. It may be called twice.
func (e *Export) Close() {
	if e.done {
		return
	}
	e.done = true
	e.rows.close()
	e.txn.Discard()
	e.s.gate.RUnlock()
}

// replacement returns what the next restore closes.
func (s *Store) replacement() <-chan struct{} {
	s.exporting.Lock()
	defer s.exporting.Unlock()
	if s.replaced == nil {
		s.replaced = make(chan struct{})
	}
	return s.replaced
}

// interrupt tells exports that a restore waits for them.
func (s *Store) interrupt() {
	s.exporting.Lock()
	defer s.exporting.Unlock()
	if s.replaced != nil {
		close(s.replaced)
		s.replaced = nil
	}
}
