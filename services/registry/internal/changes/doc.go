// Package changes reads what changed in the store: first what changed since an index, then what
// commits. Watches and replication are made of it.
//
// A Source is safe for concurrent use; each stream calls Read and Follow from one goroutine. A
// reader subscribes before it reads, so that nothing is lost between the two.
package changes
