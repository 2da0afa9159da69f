package badgerstore

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"

	"konsul.dev/services/registry/internal/steps"
)

const (
	// memtableSegments is how many segments a full memtable has.
	memtableSegments = 8
	// stallFactor is how many times as full it may become until writes wait for a flush.
	stallFactor = 2
	// flushBytes is about how much goes into the files at once.
	flushBytes = 64 << 10
	// worthFlushing is the part of a full memtable that must lie below the GC watermark for a flush
	// of no more than that.
	worthFlushing = 8
	// spread is the part of a full memtable by which servers differ in what they call full.
	spread = 4
)

// Sync puts everything applied so far into the files, so that it survives a power failure without
// the log, and returns up to which index.
func (s *Store) Sync() (uint64, error) {
	// Not while Restore replaces the files: until its end they must not be trusted.
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.closed {
		return 0, errClosed
	}
	index := s.applied.Load()
	return index, s.flush(index)
}

// isFull reports whether a flush is due.
func (s *Store) isFull() bool { return s.memtable.bytes.Load() >= s.full.Load() }

// spill has the memtable flushed when it is full, and waits for that when it is more than full. It
// runs on the goroutine that applies.
func (s *Store) spill() error {
	if !s.isFull() {
		return nil
	}
	if s.memtable.bytes.Load() >= stallFactor*s.opts.MemtableBytes {
		return s.shrink()
	}
	select {
	case s.flushDue <- struct{}{}:
	default: // It is going to be.
	}
	return nil
}

// shrink flushes what lies below the GC watermark, of which only the latest versions need be
// written; if that is not much, because the retention window is larger than the memtable, about
// half of the memtable.
func (s *Store) shrink() error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.closed {
		return errClosed
	}
	size, index := s.memtable.below(s.Watermark())
	if size < s.opts.MemtableBytes/worthFlushing {
		index = s.memtable.middle()
	}
	if index == 0 {
		index = s.applied.Load()
	}
	return s.flush(index)
}

// flush makes the files hold the state as of an applied index, and every version since the GC
// watermark up to there, and syncs them.
func (s *Store) flush(index uint64) error {
	// One at a time: what one has said to be in the files, another that began earlier must not take
	// back.
	s.flushing.Lock()
	defer s.flushing.Unlock()
	index = max(index, s.synced.Load())
	watermark := max(s.flushedWatermark.Load(), min(index, s.Watermark()))
	if index == s.synced.Load() && watermark == s.flushedWatermark.Load() {
		return nil
	}
	s.opts.Step.At(steps.Flushing)
	if err := s.write(index, watermark); err != nil {
		return fmt.Errorf("write the state as of index %d: %w", index, err)
	}
	s.opts.Step.At(steps.Flushed)
	if err := s.settle(index, watermark); err != nil {
		return err
	}
	s.memtable.release(index)
	s.draw()
	return nil
}

// draw decides how much makes the memtable full next time. Servers of one cluster write the same,
// and would all be busy with their files at the same moment.
func (s *Store) draw() { s.full.Store(s.opts.MemtableBytes + rand.Int64N(s.opts.MemtableBytes/spread)) }

// write writes the versions up to an index, but of those up to the GC watermark only the last one
// of each row, in many small transactions: nobody relies on what is there before settle has said
// so, and Badger's memtables stay of the size that tables are built for.
func (s *Store) write(index, watermark uint64) error {
	out := s.newWriter()
	defer out.cancel()
	for rows := s.memtable.segments().newMerge(nil); rows.key != nil; rows.next() {
		for v := range rows.versions(index) {
			if v.index <= s.synced.Load() {
				break
			}
			value, err := v.value(nil)
			if err != nil {
				return err
			}
			if err := out.put(rows.key, v.version, value); err != nil {
				return err
			}
			if v.index <= watermark {
				break
			}
		}
	}
	return out.flush()
}

// writer writes to the files in transactions of about flushBytes.
type writer struct {
	db    *badger.DB
	batch *badger.WriteBatch
	bytes int
}

func (s *Store) newWriter() *writer { return &writer{db: s.db, batch: s.db.NewManagedWriteBatch()} }

// put writes a version of a row. Key and value are the writer's from then on.
func (w *writer) put(key []byte, v version, value []byte) error {
	if err := w.room(len(key) + len(value)); err != nil {
		return err
	}
	if v.dropped {
		return w.batch.DeleteAt(key, v.index)
	}
	entry := &badger.Entry{Key: key, Value: value}
	if v.tombstone {
		entry.UserMeta = tombstoneMeta
	}
	return w.batch.SetEntryAt(entry, v.index)
}

// room begins another transaction if the one before has enough.
func (w *writer) room(size int) error {
	if w.bytes >= flushBytes {
		if err := w.flush(); err != nil {
			return err
		}
		w.batch, w.bytes = w.db.NewManagedWriteBatch(), 0
	}
	w.bytes += size
	return nil
}

func (w *writer) flush() error { return w.batch.Flush() }

// cancel ends a writer that was not flushed; it does no harm to one that was.
func (w *writer) cancel() { w.batch.Cancel() }

// settle syncs the files and says in the manifest that they hold the state as of an index. From
// then on compaction may drop the versions below the GC watermark that a later one up to the
// watermark stands above.
func (s *Store) settle(index, watermark uint64) error {
	if err := s.db.Sync(); err != nil {
		return fmt.Errorf("sync badger: %w", err)
	}
	// Sync covers the memtable in use; one that is full and waits for its flush has its own log.
	logs, err := filepath.Glob(filepath.Join(s.opts.Dir, "*.mem"))
	if err != nil {
		return fmt.Errorf("list memtable logs: %w", err)
	}
	for _, path := range append(logs, s.opts.Dir) {
		if err := syncFile(path); err != nil {
			return err
		}
	}
	s.opts.Step.At(steps.FlushedFiles)
	if err := writeManifest(s.opts.Dir, manifest{Synced: index, Watermark: &watermark, Oldest: s.oldest.Load()}); err != nil {
		return err
	}
	s.opts.Step.At(steps.FlushedManifest)
	s.synced.Store(index)
	s.flushedWatermark.Store(watermark)
	s.db.SetDiscardTs(watermark)
	return nil
}
