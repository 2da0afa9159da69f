// Package changes reads what changed in the store: first what changed since an index, then what
// commits. Watches and replication are made of it.
//
// A reader subscribes before it reads, so that nothing is lost between the two. Below the GC
// watermark deletions may be forgotten (Forgotten): a reader from there is told to begin again. So
// is one that fell behind what the hub keeps. Heartbeats come up to an eighth early, by chance, so
// that watchers do not keep step.
//
// A Source is safe for concurrent use; each stream calls Read and Follow from one goroutine.
package changes
