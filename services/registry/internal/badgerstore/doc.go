// Package badgerstore keeps the registry's state: what was applied lately in memtables, the rest in
// Badger's files, in managed mode with the Raft index as the commit timestamp of every row.
//
// The Raft log is the write-ahead log: a batch goes into the active memtable and nowhere else. When
// that is full, the immutable memtable, if there is one, is flushed, and the active one becomes the
// immutable one. So a row has been in memory for a while when it is flushed, and most versions,
// being overwritten and below the GC watermark by then, never are. A flush writes what is left into
// Badger, syncs the files, and says in the manifest up to which index they hold the state, and what
// the watermark was. What lies in the files above the manifest's index is left over from a flush
// that was cut short. That is harmless because applying is idempotent: a command at index i reads
// the state as of i-1 whatever is on disk above it, and writes the same rows at the same timestamps
// each time. A store opens as of its last flush (Applied); whoever has the log applies it from
// there, before anybody reads, as far as the last run had come (Reached). The log must never be
// truncated past the last flush (Sync).
//
// Readers see the state as of one index: the memtables first, the files then. A deletion leaves a
// tombstone. Tombstones and old versions above the GC watermark (Watermark) stay, for reads of the
// past and for deltas.
//
// A memtable is a copy-on-write B-tree of keys and versions, which says where each row is
// (memtable.go). The rows lie in a file without a name (swap.go), which the page cache holds. A
// scan, an export and a flush go over a copy of the tree, which costs nothing until somebody adds.
// Decoded rows in use are cached (cache.go).
//
// # Concurrency
//
// One goroutine applies (Begin, At, Commit) and restores; any number read. Locks, outermost first:
//
//	Store.gate      readers and flushes hold it shared, Restore and Close exclusively
//	Store.flushing  held by whoever flushes or makes the active memtable immutable
//	Store.rotating  held while a batch goes into the active memtable, and while the memtables change
//	memtable.mu     held while a row goes into the swap or is copied from its buffer
//	a tree has a lock of its own, held for one search or one insertion
//
// The goroutine that applies waits for these, never long, and for a flush when the memtables hold
// twice Options.MemtableBytes: Badger or the disk is too slow then. A Restore
// waits for readers; exports are told to end.
package badgerstore
