// Package watch tells the interested about committed changes.
//
// The state machine publishes every committed batch to the Hub; whoever subscribed to a row or to a
// prefix is woken and may take what changed. A subscription is bounded: one that falls behind is told
// so once and gets nothing more, never a gap in silence. Subscribing first and reading the state
// afterwards loses no wake-up. Everything here is safe for concurrent use.
package watch
