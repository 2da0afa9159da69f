// Package watching serves watches: of the rows of a table from an index on, and of the instances of
// a service. A watch shows what the caller's token may read, and ends when that is nothing any
// more.
//
// A watcher that fell behind is told so and its stream ends: it begins again from index 0. The
// service is safe for concurrent use.
package watching
