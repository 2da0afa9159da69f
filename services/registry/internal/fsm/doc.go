// Package fsm is the registry's replicated state machine: what one committed command does to the
// state.
//
// Apply is decided by the state and the commands alone: it reads no clock, no configuration and no
// network, and its only effect is on the Tx it was handed. The same commands in the same order give
// the same state on every server and in every replay. A command of a kind this binary does not know
// is an error, and whoever drives the machine must stop rather than skip it.
//
// # Idempotency
//
// A command with a request id, its idempotency key, leaves a record of its result, so that a
// command that comes again with the same id changes nothing and has the first result. The records
// of an entry's commands are one row of TABLE_REQUEST, or two: those of ids that callers named,
// which are kept for NamedRetention, and those of minted ids, which are kept for
// requestid.Retention. Ages are by the times that leaders stamped. Of each kind no more than
// RecordsKept are kept, and an entry drops a bounded number of rows. Which entry has the record of
// an id is in memory, in a queue and a map for each kind (queue.go), and read from the rows by
// Load.
//
// # Versions
//
// A command carries what a server must understand to apply it (version.go). A kind or field that
// released programs do not know is proposed only once every member understands its version.
//
// # Concurrency
//
// Apply and Load belong to the goroutine that applies; nothing blocks it but the Tx. Seen may be
// called by any goroutine: it shares a lock with Apply that is held for map operations only.
package fsm
