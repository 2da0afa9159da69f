// Package watching serves watches: of the rows of a table from an index on, and of the instances of
// a service. A watch shows what the caller's token may read, and ends when that is nothing any
// more, or with resync when the token's rights changed.
//
// A watcher that fell behind, or that resumes from an index which this server does not reach in
// aheadPatience, is told so (resync) and its stream ends: it begins again from index 0. Watchers
// that are equally far share an encoded message, unless rows are left out for one of them.
//
// WatchInstances sends a service's instances whole with each change, as the bytes that health
// queries share. It waits for its service alone.
//
// The service is safe for concurrent use.
package watching
