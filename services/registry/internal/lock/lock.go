package lock

import (
	"cmp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/kv"
	"konsul.dev/services/registry/internal/lease"
	"konsul.dev/services/registry/internal/record"
)

// Reasons of refused calls.
const (
	// ReasonHeld says that a lock is another one's.
	ReasonHeld = "LOCK_HELD"
	// ReasonNotFound says that nobody holds a lock.
	ReasonNotFound = "LOCK_NOT_FOUND"
)

const (
	table = registryv1.Table_TABLE_LOCK
	// longestDelay bounds how long a lost lock is kept from everybody.
	longestDelay   = time.Minute
	maxHolderBytes = 256
	maxListed      = 10_000
)

// Writer makes commands.
type Writer struct {
	// Delay is for acquisitions that name none.
	Delay time.Duration
}

// Acquire returns the command that gives a lock to a lease, if it may have it when the command is
// carried out. It has no request id: a lease that has the lock keeps it, so trying again is safe.
func (w Writer) Acquire(req *registryv1.AcquireLockRequest) (*registryv1.Command, string, error) {
	name, err := kv.LockName("name", req.GetName())
	if err != nil {
		return nil, "", err
	}
	if err := lease.CheckID("lease", req.GetLease()); err != nil {
		return nil, "", err
	}
	delay := req.GetDelay()
	if delay == nil {
		delay = durationpb.New(w.Delay)
	}
	if d := delay.AsDuration(); !delay.IsValid() || d < 0 || d > longestDelay {
		return nil, "", fault.Invalid("delay", "%v is not between 0 and %v", d, longestDelay)
	}
	if h := req.GetHolder(); len(h) > maxHolderBytes || !utf8.ValidString(h) || strings.ContainsFunc(h, unicode.IsControl) {
		return nil, "", fault.Invalid("holder", "is longer than %d bytes or not printable", maxHolderBytes).WithRemedy("write a short line, such as a host name")
	}
	row := &registryv1.RecordKey{Table: table, Key: name}
	return &registryv1.Command{
		Detailed: true,
		Conditions: []*registryv1.Condition{
			{Row: fsm.LeaseRow(req.GetLease()), Reason: kv.ReasonLeaseNotFound, Comparison: &registryv1.Comparison{With: &registryv1.Comparison_Exists{Exists: true}}},
			{Row: row, Reason: ReasonHeld, Comparison: &registryv1.Comparison{With: &registryv1.Comparison_FreeFor{FreeFor: req.GetLease()}}},
		},
		Operations: []*registryv1.Operation{{Op: &registryv1.Operation_AcquireLock{AcquireLock: &registryv1.AcquireLock{
			Name: name, Lease: req.GetLease(), Delay: delay, Holder: req.GetHolder(),
		}}}},
	}, name, nil
}

// Acquired returns the lock that a command gave, or a fault.
func Acquired(result *registryv1.CommandResult, name string) (*registryv1.Lock, error) {
	switch result.GetFailedReason() {
	case "":
		return fsm.DecodeLock(result.GetOutcomes()[0].GetRow())
	case ReasonHeld:
		return nil, Held(name)
	default:
		return nil, kv.LeaseEnded("lease", strings.TrimPrefix(result.GetFailedRow().GetKey(), fsm.LeasePrefix))
	}
}

// Held is the answer to who wants what another one has.
func Held(name string) error {
	return fault.New(fault.Aborted, ReasonHeld, "lock %q is held by another lease, or was lost and its delay is not over", name).
		WithField("name").WithRemedy("wait for it")
}

// Release returns the command that gives a lock back.
func Release(req *registryv1.ReleaseLockRequest) (*registryv1.Command, string, error) {
	name, err := kv.LockName("name", req.GetName())
	if err != nil {
		return nil, "", err
	}
	if req.GetToken() == 0 {
		return nil, "", fault.Invalid("token", "is 0").WithRemedy("pass the token that acquiring the lock answered")
	}
	row := &registryv1.RecordKey{Table: table, Key: name}
	return &registryv1.Command{
		RequestId: req.GetRequestId(),
		Conditions: []*registryv1.Condition{{
			Row: row, Reason: kv.ReasonLockNotHeld, Comparison: &registryv1.Comparison{With: &registryv1.Comparison_HeldWith{HeldWith: req.GetToken()}},
		}},
		Operations: []*registryv1.Operation{record.Delete(table, name)},
	}, name, nil
}

// Get returns a lock; nil when nobody has it and no delay is on.
func Get(r record.Reader, name string) (*registryv1.Lock, error) {
	row, err := r.Get(table, name)
	if err != nil {
		return nil, err
	}
	return fsm.DecodeLock(row)
}

// NotFound is the answer to a question about a lock that nobody has.
func NotFound(name string) error {
	return fault.New(fault.NotFound, ReasonNotFound, "nobody holds lock %q", name).WithField("name")
}

// List returns the locks below a prefix behind a name.
func List(r record.Reader, req *registryv1.ListLocksRequest, sees func(name string) bool) ([]*registryv1.Lock, error) {
	limit := maxListed
	if req.GetLimit() > 0 {
		limit = int(min(req.GetLimit(), maxListed))
	}
	prefix, err := record.ParsePrefix(req.GetPrefix(), registryv1.Scope_SCOPE_UNSPECIFIED)
	if err != nil {
		return nil, err
	}
	options := record.ScanOptions{Prefix: prefix.Bare}
	if req.GetAfter() != "" {
		options.From = req.GetAfter() + "\x00"
	}
	var out []*registryv1.Lock
	var failure error
	err = r.Scan(table, options, func(row *registryv1.Record) bool {
		if sees != nil && !sees(record.LocalPrefix+row.GetKey()) {
			return true
		}
		var lock *registryv1.Lock
		lock, failure = fsm.DecodeLock(row)
		out = append(out, lock)
		return failure == nil && len(out) < limit
	})
	return out, cmp.Or(err, failure)
}
