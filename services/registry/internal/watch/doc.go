// Package watch tells the interested about committed changes.
//
// The state machine publishes every committed batch to the Hub; whoever subscribed to a row or to a
// prefix is woken and may take what changed: the last version of each row, in the order of their
// indexes. What changed is kept once for all who watch the same, however many and however slow they
// are, and only until all have taken it. It is bounded: a subscription that falls behind is told so
// and gets nothing more, never a gap in silence. Subscribing first and reading the state afterwards
// loses no wake-up. Everything here is safe for concurrent use.
package watch
