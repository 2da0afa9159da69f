// Package replication serves copies of the global rows: it streams them to other datacenters
// (source.go), commits what this datacenter copies (service.go), and tells how far that is
// (status.go), also when the replicator does not answer.
//
// What may leave is decided by package federation. A reader that fell behind, or whose cursor lies
// below the GC watermark, gets everything anew. The services are safe for concurrent use.
package replication
