// Package lease decides what leases mean, and keeps their deadlines in the memory of whoever leads.
//
// A deadline that is renewed in time costs nothing but memory: only that one passed goes through
// Raft. A new leader knows nothing of what its predecessor heard, so it begins every deadline anew
// (Reset): what should have expired lives a little longer, and nothing expires too early.
//
// Writer makes commands of requests, Get and List read rows: pure functions. Keeper follows the
// state on every server and ends leases where it leads; Expirer is the deadlines alone, for whoever
// has some. Both are safe for concurrent use.
package lease
