package registry

import (
	"errors"
	"log/slog"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
	"konsul.dev/services/registry/internal/badgerstore"
)

// Retention is the `registry.retention` section.
type Retention struct {
	// Indexes is how far back, in indexes, the state can be read and watches and replication be
	// resumed; the same on every server.
	Indexes uint64 `koanf:"indexes"`
	// Bytes is about how much may be written within that: where writes are large or share their
	// indexes, it reaches back less far.
	Bytes uint64 `koanf:"bytes"`
}

// Store is the `registry.store` section.
type Store struct {
	// MemtableBytes is the size of Badger's own memtables, through which a flush goes; up to three
	// of them.
	MemtableBytes int64 `koanf:"memtable_bytes"`
	// RowCacheBytes is the size of the cache of decoded rows.
	RowCacheBytes int64 `koanf:"row_cache_bytes"`
	// TailBytes is about how much the memtable holds of what was applied before it goes into the
	// files, at most twice as much: a sixth of it in memory, the rest in the page cache. A process
	// that was killed applies it again at its next start.
	TailBytes int64 `koanf:"tail_bytes"`
}

// limits of the store's settings.
const (
	leastRetention = 1 << 10
	mostRetention  = 1 << 24
	leastWindow    = 1 << 20
	leastMemtable  = 1 << 20
	mostMemtable   = 256 << 20
	leastCache     = 1 << 20
	leastTail      = 1 << 20
	mostTail       = 1 << 30
	rowFrame       = 32 << 10 // more than a row holds beside its value
)

func defaultStore() (Retention, Store) {
	o := badgerstore.DefaultOptions("", nil)
	return Retention{Indexes: o.Retention, Bytes: o.RetentionBytes}, Store{MemtableBytes: o.BadgerMemtableBytes, RowCacheBytes: o.RowCacheBytes, TailBytes: o.MemtableBytes}
}

func (s Settings) storeOptions(dir string, log *slog.Logger) badgerstore.Options {
	o := badgerstore.DefaultOptions(dir, log)
	o.Retention, o.RetentionBytes = s.Retention.Indexes, s.Retention.Bytes
	o.BadgerMemtableBytes, o.RowCacheBytes, o.MemtableBytes = s.Store.MemtableBytes, s.Store.RowCacheBytes, s.Store.TailBytes
	return o
}

func (s Settings) validateStore() error {
	errs := []error{
		config.Between("registry.retention.indexes", s.Retention.Indexes, leastRetention, mostRetention,
			"65536 lets a watcher be away for a minute of a thousand writes a second; more takes more disk"),
		config.AtLeast("registry.retention.bytes", s.Retention.Bytes, leastWindow, ""),
		config.Between("registry.store.memtable_bytes", s.Store.MemtableBytes, leastMemtable, mostMemtable, ""),
		config.AtLeast("registry.store.row_cache_bytes", s.Store.RowCacheBytes, leastCache, ""),
		config.Between("registry.store.tail_bytes", s.Store.TailBytes, leastTail, mostTail,
			"three times registry.retention.bytes lets rows that are overwritten soon never reach the disk; more takes more room, and a longer start after a crash"),
	}
	n := s.Store.MemtableBytes
	if most := badgerstore.LargestRow(n) - rowFrame; n >= leastMemtable && int64(s.MaxValueBytes) > most {
		errs = append(errs, fault.Invalid("registry.store.memtable_bytes", "a memtable of %d bytes takes values of at most %d, not of registry.max_value_bytes, %d", n, most, s.MaxValueBytes).
			WithRemedy("make memtables eight times as large as values"))
	}
	return errors.Join(errs...)
}
