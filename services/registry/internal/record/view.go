package record

import registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

// Scanner walks the rows of a table.
type Scanner interface {
	// Scan calls fn for each matching row in key order until fn returns false. fn owns the row.
	Scan(table registryv1.Table, options ScanOptions, fn func(*registryv1.Record) bool) error
}

// Reader is the state as of one index. It is good only inside the call that handed it out.
type Reader interface {
	// Index is the Raft index the state reflects.
	Index() uint64
	// Get returns a row, a tombstone if it was deleted within the retention window, else nil. It is
	// shared: the caller must not change it.
	Get(table registryv1.Table, key string) (*registryv1.Record, error)
	Scanner
	// History calls fn for each version of a row, tombstones included, the newest first, until fn
	// returns false: the version that stands, and all that were written after completeAfter. fn
	// owns the row.
	History(table registryv1.Table, key string, fn func(*registryv1.Record) bool) (completeAfter uint64, err error)
}

// ScanOptions narrows a scan. The zero value is every live row of the table.
type ScanOptions struct {
	// Prefix every key must have.
	Prefix string
	// From is the first key to consider, inclusive.
	From string
	// Since leaves out rows last modified at or before this index.
	Since uint64
	// Deleted includes tombstones.
	Deleted bool
	// KeysOnly may leave values out.
	KeysOnly bool
}

// Store hands out the state.
type Store interface {
	// View runs fn on the latest applied state.
	View(fn func(Reader) error) error
	// ViewAt runs fn on the state as of an index. It returns an OutOfRange fault (ReasonCompacted)
	// when versions of that age may be gone, a FailedPrecondition fault (ReasonAhead) when the
	// index is not applied here yet.
	ViewAt(index uint64, fn func(Reader) error) error
	// Oldest returns the oldest index that ViewAt can show.
	Oldest() uint64
	// Watermark returns the GC watermark: tombstones and old versions up to and including this
	// index may be gone, so a delta from below it cannot be trusted.
	Watermark() uint64
}

// Live reports whether a row is there and is no tombstone.
func Live(r *registryv1.Record) bool { return r != nil && !r.GetDeleted() }

// ModifyIndex returns the index at which a live row was last written; 0 when it is absent.
func ModifyIndex(r *registryv1.Record) uint64 {
	if Live(r) {
		return r.GetModifyIndex()
	}
	return 0
}
