// Package kv decides what reads of the key-value store return and what its writes mean.
//
// It turns requests into commands, results into responses, and rows into entries: pure functions
// over a record.Reader, safe for concurrent use. A bare key reads the datacenter's own value before
// the global one; a bare write is local; an entry always says which scope it came from.
//
// A transaction is one command (Writer.Txn). One that writes global keys is the primary's, which
// has no local keys of other datacenters, so it may name none (MIXED_SCOPES). It fails as a whole
// when it would delete more than 10,000 keys or read more than 1 MiB of values, which are kept for
// a retry. Deleting below a prefix outside of a transaction goes on in commits of 10,000 keys each,
// under request ids made of the caller's, so that no commit holds up the others for long.
//
// A history has the versions above the GC watermark (History). After a restore from a snapshot it
// has those that stood then; complete_after says from which index on it is whole.
package kv
