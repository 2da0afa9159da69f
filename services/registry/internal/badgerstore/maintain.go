package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"

	"konsul.dev/services/registry/internal/record"
)

// maintainEvery is how often space is reclaimed.
const maintainEvery = time.Minute

// syncsInWindow is how many times the store is synced while it writes what the retention window holds. Nothing above the
// last Sync is let go: under load that would otherwise be a minute's worth, and compaction would carry it along.
const syncsInWindow = 2

// Maintain syncs and reclaims space until ctx ends.
func (s *Store) Maintain(ctx context.Context) error {
	ticker := time.NewTicker(maintainEvery)
	defer ticker.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-s.syncDue:
			_, err = s.Sync()
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

// wrote notes how much was written, and has it synced when it is due.
func (s *Store) wrote(bytes uint64) {
	if s.unsynced.Add(bytes) < s.opts.RetentionBytes/syncsInWindow {
		return
	}
	select {
	case s.syncDue <- struct{}{}:
	default: // It is going to be.
	}
}

// reclaim lets go of what is out of the retention window: old versions, tombstones, value log files.
func (s *Store) reclaim(ctx context.Context) error {
	// Versions above the last Sync are kept, whatever the window.
	if watermark := s.Watermark(); s.synced.Load() < watermark {
		if _, err := s.Sync(); err != nil {
			return err
		}
	}
	// A whole retention between two purges keeps the scan's cost in proportion to the writes.
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

// Purge removes the tombstones at or below the watermark, and answers how many.
func (s *Store) Purge(ctx context.Context) (int, error) {
	watermark := s.Watermark()
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.closed || watermark == 0 || s.writing.Load() > 0 {
		return 0, nil
	}
	wb := s.db.NewManagedWriteBatch()
	defer wb.Cancel()
	purged := 0
	err := s.viewAt(s.applied.Load(), func(r record.Reader) error {
		v, ok := r.(*view)
		if !ok {
			return errors.New("view of a foreign store")
		}
		it := v.txn().NewIterator(badger.IteratorOptions{PrefetchSize: prefetch})
		defer it.Close()
		for it.Rewind(); it.Valid() && ctx.Err() == nil; it.Next() {
			item := it.Item()
			if !tombstone(item) || item.Version() > watermark {
				continue
			}
			// At the tombstone's own timestamp: a row written anew above it is not touched.
			if err := wb.DeleteAt(item.KeyCopy(nil), item.Version()); err != nil {
				return err
			}
			purged++
		}
		return nil
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
