// Package steps names the places at which a server's disk changes, so that tests can stop a server
// dead, or make it slow, at each of them. Production has no hook, and At does nothing.
//
// A hook is called from whichever goroutine comes by, also from several at once.
package steps

// The steps. A name says what has just been done, or with "begin", what is about to be.
const (
	// Appending: entries are about to go into the Raft log.
	Appending = "log/begin"
	// Appended: they are there and synced.
	Appended = "log/appended"
	// Truncating: entries of the log are about to be forgotten.
	Truncating = "truncate/begin"
	// Truncated: they are gone.
	Truncated = "truncate/done"

	// Applying: a batch is about to be taken in.
	Applying = "apply/begin"
	// Applied: it is, nobody has heard of it.
	Applied = "apply/done"

	// Flushing: what was applied is about to go into the files.
	Flushing = "flush/begin"
	// Flushed: all of it is there, not synced.
	Flushed = "flush/rows"
	// FlushedFiles: the files are synced, the manifest does not say so.
	FlushedFiles = "flush/files"
	// FlushedManifest: the manifest says so.
	FlushedManifest = "flush/done"

	// Snapshotting: the store is synced, nothing of the snapshot is written.
	Snapshotting = "snapshot/begin"
	// SnapshotRows: the rows are written, the snapshot is not closed.
	SnapshotRows = "snapshot/rows"
	// Snapshotted: the snapshot counts, the log is not truncated.
	Snapshotted = "snapshot/done"

	// Restoring: a restore is about to begin.
	Restoring = "restore/begin"
	// RestoreVoid: the store's manifest says that its files are worth nothing.
	RestoreVoid = "restore/void"
	// RestoreEmpty: the old rows are gone.
	RestoreEmpty = "restore/empty"
	// RestoreRows: the new rows are written.
	RestoreRows = "restore/rows"
	// Restored: all is synced, and the manifest says so.
	Restored = "restore/done"
)

// Hook is told of every step.
type Hook func(step string)

// At tells the hook, if there is one.
func (h Hook) At(step string) {
	if h != nil {
		h(step)
	}
}
