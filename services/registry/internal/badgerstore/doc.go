// Package badgerstore keeps the registry's state in Badger in managed mode, with the Raft index as
// the commit timestamp of every row, and what was applied lately above it in memory. The rows of one table, the outcomes of
// requests, lie in a file of their own beside Badger's and are no different for whoever reads; "the files" are Badger's and this one.
//
// One goroutine applies (Begin, At, Commit) and restores; any number read, each on the state as of
// one index, and never see a batch half applied.
//
// The Raft log is the durable copy. A flush makes the files the state as of an index and says so in a
// mark; whatever lies in them above that is leftovers. What makes that safe is that applying is
// idempotent: a command at index i reads the state as of i-1 whatever is on disk above it, and writes
// the same rows at the same timestamps each time. So a store opens as of its last flush (Applied), whoever
// has the log applies it from there, before anybody reads as far as the last run had come (Reached), and
// leftovers are overwritten by themselves. The log must therefore never be truncated past the last flush
// (Sync), and versions above the watermark that the flush wrote down are never discarded.
package badgerstore
