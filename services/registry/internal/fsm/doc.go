// Package fsm is the registry's replicated state machine: what one committed command does to the
// state.
//
// Apply is decided by the state and the commands alone: it reads no clock, no configuration and no
// network, and its only effect is on the Tx it was handed. The same commands in the same order give
// the same state on every server and in every replay. A command of a kind this binary does not know
// is an error, and whoever drives the machine must stop rather than skip it.
//
// # Entries
//
// A log entry is a Command with a batch of encoded commands, and the time and epoch of the leader
// that made it. The commands share the entry's index, so they must not meet (proposal.go). No two
// put the same row: a compare-and-set against the first value would succeed over the second. None
// puts what another deletes: whoever waits for a change after the index of the put would not hear
// of the deletion. None writes what another reads or compares, since its result names the entry's
// index. Proposals carry claims, hashes of these rows, by which the leader chooses what may share
// an entry.
//
// # Transactions
//
// A transaction is one command. Its comparisons are conditions that choose between operations and
// otherwise; another condition that does not hold fails the command. What it would delete or return
// is measured before anything is done, so it is carried out whole or not at all.
//
// # Leases
//
// A row that is attached to a lease names it, and a row held/LEASE/TABLE/KEY is written and deleted
// in step (lease.go). So overwriting a row detaches it, and what ends with a lease is found by one
// prefix. Of a lease with much attached the first command ends a part, locks first, and leaves a
// row ending/LEASE in place of the lease's; the leader proposes the rest.
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
// Load. A request that finds nothing to do commits no command, so its id stays free.
//
// # Versions
//
// A command carries what a server must understand to apply it (version.go). A kind or field that
// released programs do not know is proposed only once every member understands its version. The
// server that proposes checks this, for leaders that are the old one, and the leader does, for
// views that lag.
//
// # Concurrency
//
// Apply and Load belong to the goroutine that applies; nothing blocks it but the Tx. Seen may be
// called by any goroutine: it shares a lock with Apply that is held for map operations only.
package fsm
