package badgerstore

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/steps"
)

// maxRowBytes bounds a row in a snapshot; values are checked far below it before they are proposed.
const maxRowBytes = 64 << 20

// WriteSnapshot streams the state as of an applied index: a SnapshotHeader, then every row and
// every tombstone above the watermark, length-delimited, in table and key order.
func (s *Store) WriteSnapshot(index uint64, w io.Writer) error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.closed {
		return errClosed
	}
	out := bufio.NewWriterSize(w, 1<<20)
	s.writing.Add(1) // Tombstones that the header promises must not be purged meanwhile.
	defer s.writing.Add(-1)
	tables := s.tables.Load()
	keep := s.Watermark()
	header := &registryv1.SnapshotHeader{Index: index, Format: record.SnapshotFormat, Watermark: keep}
	if _, err := protodelim.MarshalTo(out, header); err != nil {
		return fmt.Errorf("write snapshot header: %w", err)
	}
	txn := s.db.NewTransactionAt(index, false)
	defer txn.Discard()
	c := newCursor(txn, tables, nil, nil, 0)
	defer c.close()
	// From here on the cursor holds on to the files; what was let go before is not in them.
	if oldest := s.Oldest(); index < oldest {
		return record.Compacted(index, oldest)
	}
	for c.next() {
		if c.key[0] == metaTable || c.tombstone && c.index <= keep {
			continue
		}
		r, err := c.row(false)
		if err == nil {
			_, err = protodelim.MarshalTo(out, r)
		}
		if err != nil {
			return fmt.Errorf("write snapshot row: %w", err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// Restore replaces everything by what WriteSnapshot wrote. If it fails or is cut short the store
// opens empty and has to be restored again.
func (s *Store) Restore(r io.Reader) error {
	in := bufio.NewReaderSize(r, 1<<20)
	header := &registryv1.SnapshotHeader{}
	if err := protodelim.UnmarshalFrom(in, header); err != nil {
		return fmt.Errorf("read snapshot header: %w", err)
	}
	if header.GetFormat() != record.SnapshotFormat {
		return fmt.Errorf("snapshot has format %d, this server reads format %d", header.GetFormat(), record.SnapshotFormat)
	}
	s.interrupt()
	s.gate.Lock()
	defer s.gate.Unlock()
	if s.closed {
		return errClosed
	}
	s.opts.Step.At(steps.Restoring)
	// From here on the files are worth nothing until the end.
	s.void = true
	if err := writeManifest(s.opts.Dir, manifest{}); err != nil {
		return err
	}
	s.opts.Step.At(steps.RestoreVoid)
	s.synced.Store(0)
	s.flushedWatermark.Store(0)
	s.db.SetDiscardTs(0)
	if err := s.db.DropAll(); err != nil {
		return fmt.Errorf("empty the store: %w", err)
	}
	s.opts.Step.At(steps.RestoreEmpty)
	if err := s.load(in); err != nil {
		return err
	}
	s.opts.Step.At(steps.RestoreRows)
	index := header.GetIndex()
	s.rows.clear(index)
	s.beginMemtable(nil)
	s.window.begin(header.GetWatermark())
	s.oldest.Store(index)
	s.applied.Store(index)
	if err := s.reached.note(index); err != nil {
		return err
	}
	if err := s.settle(index, header.GetWatermark()); err != nil {
		return err
	}
	s.void = false
	s.opts.Step.At(steps.Restored)
	return nil
}

// load writes the rows of a snapshot into Badger.
func (s *Store) load(in *bufio.Reader) error {
	wb := s.db.NewManagedWriteBatch()
	defer wb.Cancel()
	for {
		row := &registryv1.Record{}
		err := protodelim.UnmarshalOptions{MaxSize: maxRowBytes}.UnmarshalFrom(in, row)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read snapshot row: %w", err)
		}
		if err := checkTable(row.GetTable()); err != nil {
			return fmt.Errorf("read snapshot row: %w", err)
		}
		entry, err := rowEntry(row)
		if err != nil {
			return err
		}
		if err := wb.SetEntryAt(entry, row.GetModifyIndex()); err != nil {
			return fmt.Errorf("restore row: %w", err)
		}
	}
	if err := wb.Flush(); err != nil {
		return fmt.Errorf("restore rows: %w", err)
	}
	return nil
}

// mostKeyBytes is what Badger takes for a key.
const mostKeyBytes = 65000

// Fits returns why a row could not be restored, nil if it can.
func (s *Store) Fits(row *registryv1.Record) error {
	if err := checkTable(row.GetTable()); err != nil {
		return err
	}
	entry, err := rowEntry(row)
	if err != nil {
		return err
	}
	// What Badger adds to an entry is far less.
	const added = 1 << 10
	if size := int64(len(entry.Key) + len(entry.Value) + added); len(entry.Key) > mostKeyBytes || size >= s.db.MaxBatchSize() {
		return fmt.Errorf("%d bytes are too large for a row", size)
	}
	return nil
}

// tombstoneMeta marks tombstones for whoever scans, so that they need not be decoded.
const tombstoneMeta = 1

func tombstone(item *badger.Item) bool { return item.UserMeta() == tombstoneMeta }

func rowEntry(row *registryv1.Record) (*badger.Entry, error) {
	value, err := appendRow(nil, row)
	if err != nil {
		return nil, err
	}
	entry := badger.NewEntry(rowKey(row.GetTable(), row.GetKey()), value)
	entry.UserMeta = metaOf(row)
	return entry, nil
}

// metaOf returns the mark that a row is stored with.
func metaOf(row *registryv1.Record) byte {
	if row.GetDeleted() {
		return tombstoneMeta
	}
	return 0
}

// appendRow appends a row as it is stored.
func appendRow(out []byte, row *registryv1.Record) ([]byte, error) {
	var err error
	if len(row.GetMeta()) > 0 {
		out, err = proto.MarshalOptions{Deterministic: true}.MarshalAppend(out, row) // Maps in one order.
	} else {
		start, size := len(out), row.SizeVT()
		out = slices.Grow(out, size)[:start+size]
		_, err = row.MarshalToSizedBufferVT(out[start:])
	}
	if err != nil {
		return nil, fmt.Errorf("encode row: %w", err)
	}
	return out, nil
}
