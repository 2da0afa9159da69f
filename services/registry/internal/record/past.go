package record

import (
	"strconv"
	"time"

	"konsul.dev/pkg/fault"
)

// Reasons why the state as of an index cannot be shown.
const (
	// ReasonCompacted says that versions that old may be gone.
	ReasonCompacted = "INDEX_COMPACTED"
	// ReasonAhead says that the index has not been reached yet.
	ReasonAhead = "INDEX_AHEAD"
)

// atIndex is the field of requests that name an index to read at.
const atIndex = "at_index"

// aheadRetry is when to ask again for an index that was not reached.
const aheadRetry = 100 * time.Millisecond

// Compacted is the answer to a read as of an index older than the oldest that can be shown.
func Compacted(index, oldest uint64) error {
	return fault.New(fault.OutOfRange, ReasonCompacted, "index %d is older than %d, the oldest that can still be read", index, oldest).
		WithField(atIndex).WithMeta("oldest", strconv.FormatUint(oldest, 10)).
		WithRemedy("read at that index or a later one; registry.retention.indexes says how far back the state is kept")
}

// Ahead is the answer to a read as of an index that this server has not applied.
func Ahead(index, applied uint64) error {
	return fault.New(fault.FailedPrecondition, ReasonAhead, "index %d has not been reached: the state is at %d", index, applied).
		WithField(atIndex).WithMeta("index", strconv.FormatUint(applied, 10)).WithRetryAfter(aheadRetry).
		WithRemedy("use an index that this datacenter has answered")
}
