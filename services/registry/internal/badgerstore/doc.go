// Package badgerstore keeps the registry's state: what was applied lately in a memtable, the rest
// in Badger's files, in managed mode with the Raft index as the commit timestamp of every row.
//
// The Raft log is the write-ahead log: a batch goes into the memtable and nowhere else. A flush
// writes the versions below the GC watermark into Badger, of each row the last one only, syncs the
// files, and says in the manifest up to which index they hold the state, and what the watermark
// was. So versions that are overwritten soon never reach the files. What lies in the files above
// the manifest's index is left over from a flush that was cut short. That is harmless because
// applying is idempotent: a command at index i reads the state as of i-1 whatever is on disk above
// it, and writes the same rows at the same timestamps each time. A store opens as of its last flush
// (Applied); whoever has the log applies it from there, before anybody reads, as far as the last
// run had come (Reached). The log must never be truncated past the last flush (Sync).
//
// Readers see the state as of one index: the memtable first, the files then. A deletion leaves a
// tombstone. Tombstones and old versions above the GC watermark (Watermark) stay, for reads of the
// past and for deltas.
//
// The memtable consists of segments (memtable.go, segment.go). Keys, and where each version is, lie
// in memory; the rows in files without names (swap.go), which the page cache holds. Decoded rows in
// use are cached (cache.go).
//
// # Concurrency
//
// One goroutine applies (Begin, At, Commit) and restores; any number read. Locks, outermost first:
//
//	Store.gate      readers and flushes hold it shared, Restore and Close exclusively
//	Store.flushing  held by whoever flushes
//	memtable.mu     held while a batch goes in, and while segments are released
//	segment.mu      held while a segment that grows is read or added to
//
// The goroutine that applies waits for memtable.mu and segment.mu, never long, and for a flush when
// the memtable holds twice Options.MemtableBytes: Badger or the disk is too slow then. A Restore
// waits for readers; exports are told to end.
package badgerstore
