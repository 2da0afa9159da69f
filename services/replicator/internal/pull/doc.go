// Package pull copies the primary's global records into this datacenter, for as long as it runs.
//
// It follows the federation record: in a secondary it pulls from the primary, in the primary it
// idles, and when the primary changes it turns to the new one. A session reads the stored cursor,
// opens a stream from there and applies what comes; whatever ends a session, the next one begins
// with the stored cursor again, so nothing is skipped. It never deletes a copy because a source has
// become empty, old or silent: it reports the reason and keeps what it has.
package pull
