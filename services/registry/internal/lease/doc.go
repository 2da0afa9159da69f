// Package lease decides what leases mean, and keeps their deadlines in the memory of whoever leads.
//
// A deadline that is renewed in time costs nothing but memory: only that one passed goes through
// Raft. A new leader knows nothing of what its predecessor heard, so it begins every deadline anew
// (Reset): what should have expired lives a little longer, and nothing expires too early.
//
// A lease that was found to be over is marked, under the lock that renewals take, before its end is
// proposed: nobody is promised more time for what is about to end. An end names the lease's modify
// index, so one of the same id that came after it lives on. A commit ends at most EndedAtOnce keys
// and locks (see package fsm); a revocation returns once all are gone.
//
// Writer makes commands of requests, Get and List read rows: pure functions. Keeper follows the
// state on every server and ends leases where it leads; Expirer is the deadlines alone, for whoever
// has some. Census counts the leases of each token. All are safe for concurrent use.
//
// The goroutine that applies takes Keeper.mu, which is held while a leadership begins and reads the
// leases from the store. So Keeper.mu comes before the store's locks, and must not be taken while
// the store is read.
package lease
