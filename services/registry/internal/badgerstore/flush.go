package badgerstore

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"

	"konsul.dev/services/registry/internal/steps"
)

const (
	// stallFactor is how many times Options.MemtableBytes the memtables may take until writes wait
	// for a flush.
	stallFactor = 2
	// flushBytes is about how much goes into Badger at once.
	flushBytes = 64 << 10
	// spread is the part of a full memtable by which servers differ in what they call full.
	spread = 4
	// spillBytes is about how much of a memtable's rows goes to its file at once, spills into how
	// many parts a memtable goes at least.
	spillBytes = 256 << 10
	spills     = 32
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
	return index, s.flush()
}

// add takes a batch into the active memtable.
func (s *Store) add(last uint64, changes []*change) error {
	s.rotating.Lock()
	defer s.rotating.Unlock()
	return s.tables.Load().active.add(last, changes)
}

// isFull reports whether the active memtable is due to become the immutable one.
func (s *Store) isFull() bool { return s.tables.Load().active.bytes.Load() >= s.full.Load() }

// isStalled reports whether the memtables take so much that writes wait for a flush.
func (s *Store) isStalled() bool {
	return s.tables.Load().bytes() >= stallFactor*s.opts.MemtableBytes
}

// spill has the memtables rotated when the active one is full, and waits for that when they take
// too much together.
func (s *Store) spill() error {
	if !s.isFull() {
		return nil
	}
	if s.isStalled() {
		return s.rotate()
	}
	select {
	case s.flushDue <- struct{}{}:
	default: // It is going to be.
	}
	return nil
}

// rotate flushes the immutable memtable and makes the active one immutable, if that is full. So
// what is flushed has been in memory as long as it took to fill another one, most of it is below
// the GC watermark, and most of that overwritten.
func (s *Store) rotate() error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.closed {
		return errClosed
	}
	s.flushing.Lock()
	defer s.flushing.Unlock()
	if !s.isFull() {
		return nil // Somebody else came first.
	}
	if err := s.flushImmutable(); err != nil {
		return err
	}
	s.freeze()
	if s.isStalled() {
		return s.flushImmutable()
	}
	return nil
}

// flush makes the files hold the state as of the applied index, and every version since the GC
// watermark, on disk for sure.
func (s *Store) flush() error {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	if err := s.flushImmutable(); err != nil {
		return err
	}
	s.freeze()
	if err := s.flushImmutable(); err != nil {
		return err
	}
	if index := s.synced.Load(); s.watermarkAt(index) > s.flushedWatermark.Load() {
		return s.settle(index, s.watermarkAt(index))
	}
	return nil
}

// beginMemtable makes an empty memtable the active one, and another one, if any, the immutable one.
func (s *Store) beginMemtable(immutable *memtable) {
	rows := swap{dir: s.opts.Dir, spillBytes: int(min(spillBytes, s.opts.MemtableBytes/spills))}
	if immutable != nil {
		rows.buffer = immutable.freeze()
	}
	s.tables.Store(&memtables{active: newMemtable(rows), immutable: immutable})
}

// freeze makes the active memtable the immutable one, of which there must be none. It runs under
// flushing.
func (s *Store) freeze() {
	s.rotating.Lock()
	defer s.rotating.Unlock()
	if active := s.tables.Load().active; active.last.Load() > 0 {
		s.beginMemtable(active)
		s.draw()
	}
}

// watermarkAt returns the GC watermark that a flush up to an index writes down.
func (s *Store) watermarkAt(index uint64) uint64 {
	return max(s.flushedWatermark.Load(), min(index, s.Watermark()))
}

// flushImmutable makes the files hold what the immutable memtable does, if there is one. It runs
// under flushing.
func (s *Store) flushImmutable() error {
	table := s.tables.Load().immutable
	if table == nil {
		return nil
	}
	index := table.last.Load()
	watermark := s.watermarkAt(index)
	s.opts.Step.At(steps.Flushing)
	if err := s.write(table, watermark); err != nil {
		return fmt.Errorf("write the state as of index %d: %w", index, err)
	}
	s.opts.Step.At(steps.Flushed)
	if err := s.settle(index, watermark); err != nil {
		return err
	}
	s.rotating.Lock()
	defer s.rotating.Unlock()
	s.tables.Store(&memtables{active: s.tables.Load().active})
	return nil
}

// draw decides how much makes the active memtable full. Servers of one cluster write the same, and
// would all be busy with their files at the same moment.
func (s *Store) draw() {
	half := s.opts.MemtableBytes / 2
	s.full.Store(half + rand.Int64N(half/spread))
}

// write writes the versions of a memtable, but of those up to the watermark only the last one of
// each row, in many small transactions: nobody relies on what is there before settle has said so,
// and Badger's memtables stay of the size that tables are built for.
func (s *Store) write(table *memtable, watermark uint64) (err error) {
	out := s.newWriter()
	defer out.cancel()
	below := "" // The key of a row whose other versions nobody may ask for.
	table.tree.Copy().Scan(func(e entry) bool {
		if e.key == below {
			return true
		}
		if below = ""; e.index <= watermark {
			below = e.key
		}
		var value []byte
		if value, err = table.value(e, nil); err == nil {
			err = out.put([]byte(e.key), e.version(), value)
		}
		return err == nil
	})
	if err != nil {
		return err
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
