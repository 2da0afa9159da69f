// Package cluster runs the real servers of one datacenter's registry inside a test.
//
// It is for what the race detector, which the registry's own tests run under, cannot watch: the
// Raft library reads a peer's address without the lock under which it changes it (raft 1.8,
// updateLastAppended).
package cluster
