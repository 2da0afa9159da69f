package kv

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/record"
)

// Reasons of refused writes.
const (
	// ReasonValueTooLarge says that a value is over registry.max_value_bytes.
	ReasonValueTooLarge = "VALUE_TOO_LARGE"
	// ReasonLeaseNotFound says that a lease has ended or never was.
	ReasonLeaseNotFound = "LEASE_NOT_FOUND"
	// ReasonLockNotHeld says that a lock is not held with the token given.
	ReasonLockNotHeld = "LOCK_NOT_HELD"
	// ReasonTooMuch says that a transaction would answer or delete more than one commit may.
	ReasonTooMuch = "TOO_MUCH"
)

// Limits of what belongs to an entry beside its value.
const (
	maxMeta      = 64
	maxMetaName  = 128
	maxMetaValue = 512
	// deletedAtOnce is how many keys one commit deletes: more would hold up everybody else's
	// writes.
	deletedAtOnce = 10_000
)

// Writer makes commands for one datacenter.
type Writer struct {
	// Datacenter is where the writes originate.
	Datacenter string
	// MaxValueBytes bounds a value.
	MaxValueBytes int
	// MaxOperations bounds the comparisons and operations of a transaction.
	MaxOperations int
}

// Set returns the command of a write to the request's key.
func (w Writer) Set(key record.Key, req *registryv1.SetRequest) (*registryv1.Command, error) {
	put, conditions, err := w.put(key, &registryv1.TxnSet{Value: req.GetValue(), Flags: req.GetFlags(), Lease: req.GetLease(), Meta: req.GetMeta()})
	if err != nil {
		return nil, err
	}
	cmd := &registryv1.Command{RequestId: req.GetRequestId(), Operations: []*registryv1.Operation{put}, Conditions: conditions}
	if req.Cas != nil {
		cmd.Conditions = append(cmd.Conditions, record.When(table, key.In(key.Write()), req.GetCas(), record.ReasonCASMismatch))
	}
	return cmd, fence(cmd, key, req.GetFence())
}

// put returns the operation of a write, and what it takes.
func (w Writer) put(key record.Key, set *registryv1.TxnSet) (*registryv1.Operation, []*registryv1.Condition, error) {
	if n := len(set.GetValue()); n > w.MaxValueBytes {
		return nil, nil, fault.New(fault.InvalidArgument, ReasonValueTooLarge, "is %d bytes long; at most %d are allowed", n, w.MaxValueBytes).
			WithField("value").WithRemedy("store large data elsewhere and its address here, or raise registry.max_value_bytes")
	}
	if err := checkMeta(set.GetMeta()); err != nil {
		return nil, nil, err
	}
	var conditions []*registryv1.Condition
	if lease := set.GetLease(); lease != "" {
		if key.Write() == registryv1.Scope_SCOPE_GLOBAL {
			return nil, nil, fault.Invalid("lease", "does not go with a global key: a lease is known in its own datacenter only").
				WithRemedy("write a local key, or leave the lease out")
		}
		conditions = append(conditions, &registryv1.Condition{
			Row: fsm.LeaseRow(lease), Reason: ReasonLeaseNotFound,
			Comparison: &registryv1.Comparison{With: &registryv1.Comparison_Exists{Exists: true}},
		})
	}
	return &registryv1.Operation{Op: &registryv1.Operation_Put{Put: &registryv1.Record{
		Table: table, Key: key.In(key.Write()), Value: set.GetValue(), Flags: set.GetFlags(),
		Lease: set.GetLease(), Meta: set.GetMeta(), OriginDatacenter: w.Datacenter,
	}}}, conditions, nil
}

func checkMeta(meta map[string]string) error {
	if len(meta) > maxMeta {
		return fault.Invalid("meta", "has %d pairs; at most %d are allowed", len(meta), maxMeta).WithRemedy("put the rest into the value")
	}
	for name, value := range meta {
		switch {
		case name == "" || len(name) > maxMetaName || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
			return fault.Invalid("meta", "has a name that is empty, longer than %d bytes or not printable", maxMetaName).WithRemedy("use short printable names")
		case len(value) > maxMetaValue:
			return fault.Invalid("meta", "%q is %d bytes long; at most %d are allowed", name, len(value), maxMetaValue).WithRemedy("put it into the value")
		}
	}
	return nil
}

// fence makes a command hold only while a lock is held.
func fence(cmd *registryv1.Command, key record.Key, f *registryv1.Fence) error {
	if f == nil {
		return nil
	}
	if key.Write() == registryv1.Scope_SCOPE_GLOBAL {
		return fault.Invalid("fence", "does not go with a global key: a lock is known in its own datacenter only").
			WithRemedy("write a local key, or leave the fence out")
	}
	c, err := held("fence", f)
	if err != nil {
		return err
	}
	c.Reason = ReasonLockNotHeld
	cmd.Conditions = append(cmd.Conditions, c)
	return nil
}

func held(field string, f *registryv1.Fence) (*registryv1.Condition, error) {
	name, err := LockName(field+".lock", f.GetLock())
	if err != nil {
		return nil, err
	}
	if f.GetToken() == 0 {
		return nil, fault.Invalid(field+".token", "is 0").WithRemedy("pass the token that acquiring the lock answered")
	}
	return &registryv1.Condition{
		Row:        &registryv1.RecordKey{Table: registryv1.Table_TABLE_LOCK, Key: name},
		Comparison: &registryv1.Comparison{With: &registryv1.Comparison_HeldWith{HeldWith: f.GetToken()}},
	}, nil
}

// LockName reads the name of a lock, which is that of a local key.
func LockName(field, name string) (string, error) {
	key, err := record.ParseKey(name, registryv1.Scope_SCOPE_UNSPECIFIED)
	if f, ok := fault.As(err); ok {
		return "", f.WithField(field)
	}
	if key.Scope == registryv1.Scope_SCOPE_GLOBAL {
		return "", fault.Invalid(field, "is global; a lock belongs to one datacenter").WithRemedy("leave global/ out")
	}
	return key.Bare, nil
}

// Delete returns the command of a deletion of the request's key. Of many keys it deletes the first
// ones; Outcome's caller goes on while the result says that there are more.
func (w Writer) Delete(key record.Key, req *registryv1.DeleteRequest) (*registryv1.Command, error) {
	row := &registryv1.RecordKey{Table: table, Key: key.In(key.Write())}
	cmd := &registryv1.Command{RequestId: req.GetRequestId()}
	switch {
	case req.GetRecurse() && req.Cas != nil:
		return nil, fault.Invalid("cas", "does not go with recurse").WithRemedy("drop one of the two")
	case req.GetRecurse():
		cmd.Operations = []*registryv1.Operation{deleteBelow(row, true)}
	default:
		cmd.Operations = []*registryv1.Operation{record.Delete(table, row.GetKey())}
		if req.Cas != nil {
			cmd.Conditions = append(cmd.Conditions, record.When(table, row.GetKey(), req.GetCas(), record.ReasonCASMismatch))
		}
	}
	return cmd, fence(cmd, key, req.GetFence())
}

func deleteBelow(prefix *registryv1.RecordKey, partial bool) *registryv1.Operation {
	return &registryv1.Operation{Op: &registryv1.Operation_DeleteBelow{DeleteBelow: &registryv1.DeleteBelow{
		Prefix: prefix, Limit: deletedAtOnce, Partial: partial,
	}}}
}

// Outcome returns the fault of a command that did not hold, nil if it did.
func Outcome(result *registryv1.CommandResult, key record.Key) error {
	switch result.GetFailedReason() {
	case "":
		return nil
	case ReasonLeaseNotFound:
		return LeaseEnded("lease", strings.TrimPrefix(result.GetFailedRow().GetKey(), fsm.LeasePrefix))
	case ReasonLockNotHeld:
		return LockNotHeld("fence", result.GetFailedRow().GetKey())
	case fsm.FailedTooMuch:
		return fault.New(fault.FailedPrecondition, ReasonTooMuch, "%s is where it becomes more than one commit may delete or answer: %d keys, %d bytes",
			result.GetFailedRow().GetKey(), deletedAtOnce, maxTxnAnswer).
			WithRemedy("make several transactions of it, or delete narrower prefixes")
	default:
		return fault.New(fault.Aborted, record.ReasonCASMismatch, "key %q has moved on from that index", key.Bare).
			WithField("cas").WithRemedy("read the key again and retry with its modify_index")
	}
}

// LeaseEnded is the answer to a write with a lease that is not there.
func LeaseEnded(field, id string) error {
	return fault.New(fault.FailedPrecondition, ReasonLeaseNotFound, "lease %q has ended, or is none of this datacenter", id).
		WithField(field).WithRemedy("grant a new one and begin anew")
}

// LockNotHeld is the answer to a write behind a lock that was lost.
func LockNotHeld(field, name string) error {
	return fault.New(fault.FailedPrecondition, ReasonLockNotHeld, "lock %q is not held with that token", name).
		WithField(field).WithRemedy("stop what the lock was for; acquire it again")
}
