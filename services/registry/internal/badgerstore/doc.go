// Package badgerstore keeps the registry's state in Badger in managed mode, with the Raft index as
// the commit timestamp of every row.
//
// One goroutine applies (Begin, At, Commit) and restores; any number read, each on the state as of
// one index, and never see a batch half applied.
//
// The Raft log is the durable copy: Badger runs unsynced. What makes that safe is that applying is
// idempotent. A command at index i reads the state as of i-1 whatever is on disk above it, and writes
// the same rows at the same timestamps each time. So after a crash the store says how far it can be
// trusted (Applied), the log is replayed from there, and leftovers of a batch that was cut short are
// overwritten by themselves. Applied is the last whole batch when only the process died, and the last
// Sync when the machine did, because then the disk may have holes. The log must therefore never be
// truncated past the last Sync, and versions above it are never discarded.
package badgerstore
