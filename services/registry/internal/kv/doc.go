// Package kv decides what reads of the key-value store return and what its writes mean.
//
// It turns requests into commands, outcomes into answers, and rows into entries: pure functions
// over a record.Reader, safe for concurrent use. A bare key reads the datacenter's own value before
// the global one; a bare write is local; an entry always says which scope it came from.
package kv
