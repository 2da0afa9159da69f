// Package watch tells the interested about committed changes.
//
// The goroutine that applies publishes every committed batch to the Hub. Whoever subscribed to a
// row or to a prefix is woken and may take what changed: the last version of each row, in the order
// of their indexes. Rows are matched to filters by exact key and by the prefix lengths in use. What
// changed is kept once for all who watch the same filter, however many and however slow they are,
// and only until all have taken it. It is bounded (Limits): a subscription that falls behind is
// told so and gets nothing more, never a gap in silence. Subscribing first and reading the state
// afterwards loses no wake-up.
//
// # Concurrency
//
// Everything is safe for concurrent use. Publish holds Hub.mu while it matches rows, and wakes
// nobody itself: another goroutine does, so that the one that applies does no work for each
// watcher. Watchers that are equally far get the same Delta, whose message is encoded by the first
// of them (Share). Nothing is called under Hub.mu; Delta.mu, which is held meanwhile, is never
// taken under it.
package watch
