package badgerstore

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/steps"
)

// Options says where and how to keep the state.
type Options struct {
	// Dir is the store's own folder.
	Dir string
	Log *slog.Logger
	// Retention is how many indexes back tombstones and old versions are kept.
	Retention uint64
	// RetentionBytes is about how much may be written within that: where indexes are large, fewer
	// are kept.
	RetentionBytes uint64
	// BadgerMemtableBytes is the size of a memtable of Badger's. LargestRow follows from it.
	BadgerMemtableBytes int64
	// RowCacheBytes is the size of the cache of decoded rows.
	RowCacheBytes int64
	// MemtableBytes is about how much the memtables hold, each half of it; writes wait at twice
	// as much.
	MemtableBytes int64
	// Step, if set, is told of what is done to the files.
	Step steps.Hook
}

// DefaultOptions suits a registry of up to some millions of rows.
func DefaultOptions(dir string, log *slog.Logger) Options {
	return Options{Dir: dir, Log: log, Retention: 1 << 16, RetentionBytes: 8 << 20, BadgerMemtableBytes: 15 << 18, RowCacheBytes: 16 << 20, MemtableBytes: 24 << 20}
}

// Store is the state on disk. Reads are safe for concurrent use; Begin to Commit and Restore belong
// to one goroutine.
type Store struct {
	opts    Options
	db      *badger.DB
	rows    *rowCache
	window  window
	applied atomic.Uint64
	// synced is the index of the last flush, flushedWatermark the GC watermark that it wrote down:
	// the files hold the state as of the first, and all versions between.
	synced, flushedWatermark atomic.Uint64
	// reached is what a next run of this server is told; before is what the last one told this one.
	reached reached
	before  uint64
	// oldest is the index of the last restore: no older state is here.
	oldest atomic.Uint64

	// gate keeps readers out while Restore replaces everything under them.
	gate   sync.RWMutex
	closed bool
	// void is set while a restore is incomplete: what is here is worth nothing.
	void bool
	// spare is what the next batch keeps its rows in.
	spare batchRows
	// flushDue is signalled when the active memtable is full, which it is with full bytes.
	flushDue chan struct{}
	full     atomic.Int64
	// writing counts the snapshots that are being written.
	writing atomic.Int32
	// flushing is held by whoever flushes; gate comes before it.
	flushing sync.Mutex
	// rotating is held while a batch goes into the active memtable, and while the memtables change.
	rotating sync.Mutex
	tables   atomic.Pointer[memtables]

	// purged is the GC watermark of the last purge; for Maintain alone.
	purged uint64
	// bytes is what the folder occupied when it was last measured; tombstones, how many were
	// removed.
	bytes      atomic.Int64
	tombstones atomic.Uint64

	exporting sync.Mutex
	// replaced, guarded by exporting, is closed when a restore waits for exports; nil when nobody
	// exports.
	replaced chan struct{}
}

// Open opens the store in its folder, making it if need be.
func Open(opts Options) (*Store, error) {
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make store folder: %w", err)
	}
	if err := removeSwapFiles(opts.Dir); err != nil {
		return nil, err
	}
	db, err := badger.OpenManaged(badgerOptions(opts))
	if err != nil {
		return nil, fmt.Errorf("open badger in %q: %w", opts.Dir, err)
	}
	s := &Store{opts: opts, db: db, flushDue: make(chan struct{}, 1)}
	s.window.limit = opts.RetentionBytes
	s.draw()
	if err := s.recover(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.rows = newRowCache(opts.RowCacheBytes, s.applied.Load())
	return s, nil
}

// tableBytes is the size of a table. Badger builds one in a buffer of twice that, made a power of
// two, and takes three more mebibytes for the index of each, whatever its size: with tables of half
// the size those were a fifth of all that applying writes allocates.
const tableBytes = 4<<20 - 1

// topTables is how many tables of level 0 start a compaction; at twice as many, writes wait for it.
// Most of what is written is overwritten soon, and fewer and larger compactions copy less of the
// rest: measured under registrations, with a first level of 10 MiB every other second had a third
// of the rate. Level 0 stays in memory: 12 were no faster.
const topTables = 6

// dataBlock is the size of a table's block. The idempotency records of a large entry fit one: what
// does not fit is copied into buffers of twice the size until it does, and Badger keeps them all.
const dataBlock = 16 << 10

// LargestRow returns how many bytes of a row go into a store whose Badger has memtables of a size:
// Badger writes no more than 15 % of one at once.
func LargestRow(badgerMemtableBytes int64) int64 { return min(1<<20, badgerMemtableBytes*15/100) }

func badgerOptions(opts Options) badger.Options {
	o := badger.DefaultOptions(opts.Dir).
		WithLogger(badgerLog{opts.Log}).
		WithSyncWrites(false).
		WithDetectConflicts(false).
		WithNumVersionsToKeep(1).
		WithMetricsEnabled(false).
		WithMemTableSize(opts.BadgerMemtableBytes).
		WithNumMemtables(2).
		WithBaseTableSize(tableBytes).
		WithNumCompactors(2).
		WithNumLevelZeroTables(topTables).WithNumLevelZeroTablesStall(2 * topTables).WithBaseLevelSize(64 << 20).
		WithValueThreshold(LargestRow(opts.BadgerMemtableBytes)). // All rows live in the tree, which compaction keeps bounded.
		WithValueLogFileSize(16 << 20).
		WithCompression(options.None). // A third less memory: tables are built in buffers that Badger keeps, eight of them.
		WithBlockSize(dataBlock).
		WithBlockCacheSize(0). // Blocks that are not compressed are read where they lie.
		WithIndexCacheSize(0)
	o.TableSizeMultiplier = 1 // Tables of lower levels are built in the same buffers.
	return o
}

// recover reads what the files hold.
func (s *Store) recover() error {
	m, requestsFile, err := readManifest(s.opts.Dir)
	if err != nil {
		return err
	}
	if s.reached, s.before, err = openReached(s.opts.Dir); err != nil {
		return err
	}
	watermark := m.Synced
	if m.Watermark != nil {
		watermark = *m.Watermark
	}
	s.applied.Store(m.Synced)
	s.synced.Store(m.Synced)
	s.flushedWatermark.Store(watermark)
	s.oldest.Store(m.Oldest)
	s.window.begin(watermark)
	s.beginMemtable(nil)
	s.db.SetDiscardTs(watermark)
	if requestsFile != "" {
		if err := s.adoptRequests(requestsFile); err != nil {
			return err
		}
		if err := s.settle(m.Synced, watermark); err != nil {
			return err
		}
	}
	return removeRequests(s.opts.Dir)
}

// Reached returns the highest index that anybody may have seen of this store before it was opened.
// Whoever has the log must apply it up to there before the store is shown again; where the log ends
// before that, the machine lost power, and nothing more was certain.
func (s *Store) Reached() uint64 { return max(s.before, s.synced.Load()) }

// Applied is the index of the last command whose changes are here and visible.
func (s *Store) Applied() uint64 { return s.applied.Load() }

// Watermark returns the GC watermark: the index up to and including which tombstones and old
// versions may be gone. It never goes back as long as the store is open, and servers of one cluster
// need not agree on it.
func (s *Store) Watermark() uint64 {
	applied := s.applied.Load()
	return max(s.window.watermark.Load(), applied-min(applied, s.opts.Retention))
}

// View runs fn on the latest applied state.
func (s *Store) View(fn func(record.Reader) error) error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.closed {
		return errClosed
	}
	return s.viewAt(s.applied.Load(), fn)
}

// Oldest returns the oldest index that ViewAt can show.
func (s *Store) Oldest() uint64 { return max(s.Watermark(), s.oldest.Load()) }

// ViewAt runs fn on the state as of an index inside the retention window.
func (s *Store) ViewAt(index uint64, fn func(record.Reader) error) error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.closed {
		return errClosed
	}
	if applied := s.applied.Load(); index > applied {
		return record.Ahead(index, applied)
	}
	if oldest := s.Oldest(); index < oldest {
		return record.Compacted(index, oldest)
	}
	if err := s.viewAt(index, fn); err != nil {
		return err
	}
	// The window moves while fn reads: what it saw of an index that fell out of it cannot be
	// trusted.
	if oldest := s.Oldest(); index < oldest {
		return record.Compacted(index, oldest)
	}
	return nil
}

func (s *Store) viewAt(index uint64, fn func(record.Reader) error) error {
	v := &view{db: s.db, index: index, tables: s.tables.Load(), rows: s.rows, oldest: s.Oldest, watermark: s.Oldest()}
	defer v.discard()
	return fn(v)
}

var errClosed = errors.New("store is closed")

// Close flushes and closes the store. Reads after it fail.
func (s *Store) Close() error {
	s.gate.Lock()
	defer s.gate.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	var err error
	if !s.void {
		err = s.flush()
	}
	return errors.Join(err, s.db.Close(), s.reached.file.Close())
}

var _ record.Store = (*Store)(nil)
