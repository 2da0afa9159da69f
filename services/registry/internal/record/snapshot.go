package record

// SnapshotFormat is the format of the state's snapshots, as their header names it.
const SnapshotFormat = 1

const (
	// ReasonReplaced says that a restore replaced the state while it was read as a whole.
	ReasonReplaced = "STATE_REPLACED"
	// ReasonCASMismatch says that what was to be written moved on from the index the write was made
	// for.
	ReasonCASMismatch = "CAS_MISMATCH"
)
