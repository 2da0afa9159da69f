package lease

import (
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/kv"
	"konsul.dev/services/registry/internal/record"
)

// Reasons of refused calls.
const (
	// ReasonExists says that the id of a new lease is taken.
	ReasonExists = "LEASE_EXISTS"
	// ReasonEnding says that a lease's time is over and its end is being written, or what was
	// attached to it is being deleted.
	ReasonEnding = "LEASE_ENDING"
)

const table = registryv1.Table_TABLE_LEASE

// shown bounds the keys and locks that Get returns.
const shown = 1000

// Writer makes commands.
type Writer struct {
	Datacenter string
	// MinTTL and MaxTTL bound what may be asked for.
	MinTTL, MaxTTL time.Duration
}

// Grant returns the command that makes a lease for the token with an accessor id, and the lease.
// Its request id must be set: the same request makes the same lease.
func (w Writer) Grant(req *registryv1.GrantLeaseRequest, accessor string) (*registryv1.Command, *registryv1.Lease, error) {
	lease := &registryv1.Lease{Id: req.GetId(), Ttl: req.GetTtl(), AccessorId: accessor}
	if lease.GetId() == "" {
		lease.Id = uuid.NewSHA1(uuid.NameSpaceOID, []byte("konsul lease "+req.GetRequestId())).String()
	}
	if err := CheckID("id", lease.GetId()); err != nil {
		return nil, nil, err
	}
	if req.GetName() != "" {
		name, err := kv.LockName("name", req.GetName())
		if err != nil {
			return nil, nil, err
		}
		lease.Name = name
	}
	ttl := req.GetTtl().AsDuration()
	if req.GetTtl() == nil || !req.GetTtl().IsValid() || ttl < w.MinTTL || ttl > w.MaxTTL {
		return nil, nil, fault.Invalid("ttl", "%v is not between %v and %v", ttl, w.MinTTL, w.MaxTTL).
			WithRemedy("choose another, or change registry.lease.min_ttl and max_ttl")
	}
	row := fsm.LeaseRow(lease.GetId())
	put, err := record.Put(table, row.GetKey(), w.Datacenter, lease)
	return &registryv1.Command{
		RequestId: req.GetRequestId(),
		// What is attached to an earlier lease of the id would be taken for this one's.
		Conditions: []*registryv1.Condition{{Row: row, Reason: ReasonExists}, {Row: fsm.EndingRow(lease.GetId()), Reason: ReasonEnding}},
		Operations: []*registryv1.Operation{put},
	}, lease, err
}

// end returns the command that ends a lease as it was read, so that one of the same name that came
// after it lives on. With a limit, it takes so much of what is attached away, and proceed the rest.
func end(requestID string, row *registryv1.Record, limit uint64) *registryv1.Command {
	id := strings.TrimPrefix(row.GetKey(), fsm.LeasePrefix)
	return &registryv1.Command{
		RequestId:  requestID,
		Conditions: []*registryv1.Condition{{Row: fsm.LeaseRow(id), ModifyIndex: row.GetModifyIndex(), Reason: kv.ReasonLeaseNotFound}},
		Operations: []*registryv1.Operation{{Op: &registryv1.Operation_EndLease{EndLease: &registryv1.EndLease{Id: id, Limit: limit}}}},
	}
}

// proceed returns the command that goes on with the end of a lease as far as a row says it has
// come.
func proceed(row *registryv1.Record, limit uint64) *registryv1.Command {
	id := strings.TrimPrefix(row.GetKey(), fsm.EndingPrefix)
	return &registryv1.Command{
		Conditions: []*registryv1.Condition{{Row: fsm.EndingRow(id), ModifyIndex: row.GetModifyIndex(), Reason: ReasonEnding}},
		Operations: []*registryv1.Operation{{Op: &registryv1.Operation_EndLease{EndLease: &registryv1.EndLease{Id: id, Limit: limit}}}},
	}
}

// Gone reports whether what was attached to a lease that has ended is gone, too.
func Gone(r record.Reader, id string) (bool, error) {
	row, err := r.Get(table, fsm.EndingRow(id).GetKey())
	return !record.Live(row), err
}

// Outcome returns the fault of a command that did not hold, nil if it did.
func Outcome(result *registryv1.CommandResult, id string) error {
	switch result.GetFailedReason() {
	case "":
		return nil
	case ReasonExists:
		return fault.New(fault.AlreadyExists, ReasonExists, "lease %q is there already", id).
			WithField("id").WithRemedy("choose another id, or none")
	case ReasonEnding:
		return Ending(id)
	default:
		return NotFound(id)
	}
}

// NotFound is the answer to a call about a lease that is not there.
func NotFound(id string) error {
	return fault.New(fault.NotFound, kv.ReasonLeaseNotFound, "lease %q has ended, or is none of this datacenter", id).
		WithField("id").WithRemedy("grant a new one; what was attached to it is gone")
}

// Ending is the answer to who wants to keep alive, or grant anew, what is being ended.
func Ending(id string) error {
	return fault.New(fault.Unavailable, ReasonEnding, "the time of lease %q is over, its end is being written", id).
		WithField("id").WithRetryAfter(50 * time.Millisecond)
}

var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// CheckID refuses what cannot be the id of a lease.
func CheckID(field, id string) error {
	if !idPattern.MatchString(id) {
		return fault.Invalid(field, "%q is no id of a lease", id).
			WithRemedy("use up to 128 letters, digits, dots, dashes and underscores, a letter or digit first")
	}
	return nil
}

// Key returns the key of a lease's row.
func Key(id string) string { return fsm.LeaseRow(id).GetKey() }

// Row returns the row of a lease; NotFound when it has ended.
func Row(r record.Reader, id string) (*registryv1.Record, error) {
	if err := CheckID("id", id); err != nil {
		return nil, err
	}
	row, err := r.Get(table, fsm.LeaseRow(id).GetKey())
	if err != nil {
		return nil, err
	}
	if !record.Live(row) {
		return nil, NotFound(id)
	}
	return row, nil
}

// Decode reads a row.
func Decode(row *registryv1.Record) (*registryv1.Lease, error) {
	lease := &registryv1.Lease{}
	if err := record.Decode(row, lease); err != nil {
		return nil, err
	}
	lease.GrantedAt, lease.CreateIndex = row.GetOriginTime(), row.GetCreateIndex()
	return lease, nil
}

// Attached returns the first keys and locks that end with a lease.
func Attached(r record.Reader, id string) (keys, locks []string, err error) {
	var failure error
	err = r.Scan(table, record.ScanOptions{Prefix: fsm.AttachedPrefix(id), KeysOnly: true}, func(row *registryv1.Record) bool {
		held, err := fsm.Attached(id, row.GetKey())
		switch {
		case err != nil:
			failure = err
			return false
		case held.GetTable() == registryv1.Table_TABLE_LOCK && len(locks) < shown:
			locks = append(locks, held.GetKey())
		case held.GetTable() == registryv1.Table_TABLE_KV && len(keys) < shown:
			keys = append(keys, record.FromStored(held.GetKey()).Bare)
		}
		return len(keys) < shown || len(locks) < shown
	})
	if err == nil {
		err = failure
	}
	return keys, locks, err
}

// Each calls fn for every lease in the order of their ids until it returns an error.
func Each(r record.Reader, fn func(row *registryv1.Record, lease *registryv1.Lease) error) error {
	return record.Each(r, table, record.ScanOptions{Prefix: fsm.LeasePrefix}, func(row *registryv1.Record) error {
		lease, err := Decode(row)
		if err != nil {
			return err
		}
		return fn(row, lease)
	})
}
