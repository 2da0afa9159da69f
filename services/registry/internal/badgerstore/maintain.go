package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// maintainEvery is how often space is reclaimed.
const maintainEvery = time.Minute

// Maintain flushes and reclaims space until ctx ends.
func (s *Store) Maintain(ctx context.Context) error {
	ticker := time.NewTicker(maintainEvery)
	defer ticker.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-s.flushDue:
			if s.isFull() { // It was told so during the last flush, too.
				err = s.rotate()
			}
		case <-ticker.C:
			err = s.reclaim(ctx)
		}
		if errors.Is(err, errClosed) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// reclaim lets go of what is out of the retention window: tombstones, value log files.
func (s *Store) reclaim(ctx context.Context) error {
	// Half a retention between two purges keeps the scan's cost in proportion to the writes.
	if watermark := s.Watermark(); watermark > s.purged+s.opts.Retention/2 {
		if _, err := s.Purge(ctx); err != nil {
			return err
		}
		s.purged = watermark
	}
	return errors.Join(s.collect(), s.weigh())
}

func (s *Store) collect() error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.closed {
		return nil
	}
	err := s.db.RunValueLogGC(0.5)
	if err != nil && !errors.Is(err, badger.ErrNoRewrite) && !errors.Is(err, badger.ErrRejected) {
		return fmt.Errorf("collect value log: %w", err)
	}
	return nil
}

// Purge removes the tombstones at or below the GC watermark, and returns how many.
func (s *Store) Purge(ctx context.Context) (int, error) {
	watermark := s.Watermark()
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.closed || watermark == 0 || s.writing.Load() > 0 {
		return 0, nil
	}
	// Old tombstones go into the files before they are looked for there, and a next run must know
	// that they may be gone.
	if err := s.flush(); err != nil {
		return 0, err
	}
	wb := s.db.NewManagedWriteBatch()
	defer wb.Cancel()
	purged := 0
	err := s.eachTombstone(ctx, watermark, func(item *badger.Item) error {
		purged++
		// At the tombstone's own timestamp: a row written anew above it is not touched.
		return wb.DeleteAt(item.KeyCopy(nil), item.Version())
	})
	if err != nil {
		return 0, fmt.Errorf("find old tombstones: %w", err)
	}
	if err := wb.Flush(); err != nil {
		return 0, fmt.Errorf("purge tombstones: %w", err)
	}
	s.tombstones.Add(uint64(purged)) //nolint:gosec // a count
	return purged, nil
}

// eachTombstone calls fn for the tombstones in the files that stand as of an index.
func (s *Store) eachTombstone(ctx context.Context, index uint64, fn func(*badger.Item) error) error {
	txn := s.db.NewTransactionAt(index, false)
	defer txn.Discard()
	it := txn.NewIterator(badger.IteratorOptions{PrefetchSize: prefetch})
	defer it.Close()
	for it.Rewind(); it.Valid() && ctx.Err() == nil; it.Next() {
		if !tombstone(it.Item()) {
			continue
		}
		if err := fn(it.Item()); err != nil {
			return err
		}
	}
	return nil
}
