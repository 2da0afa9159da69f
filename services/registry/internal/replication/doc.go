// Package replication serves copies of the global rows: it streams them to other datacenters,
// commits what this datacenter copies, and tells how far that is.
//
// What may leave is decided by package federation. The services are safe for concurrent use.
package replication
