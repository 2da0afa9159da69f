package kv

import (
	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// Reasons of refused writes.
const (
	// ReasonCASMismatch says that the key moved on from the index the write was made for.
	ReasonCASMismatch = "CAS_MISMATCH"
	// ReasonValueTooLarge says that a value is over registry.max_value_bytes.
	ReasonValueTooLarge = "VALUE_TOO_LARGE"
)

// Writer makes commands for one datacenter.
type Writer struct {
	// Datacenter is where the writes originate.
	Datacenter string
	// MaxValueBytes bounds a value.
	MaxValueBytes int
}

// Set answers the command of a write.
func (w Writer) Set(req *registryv1.SetRequest) (*registryv1.Command, record.Key, error) {
	key, err := record.ParseKey(req.GetKey(), req.GetScope())
	if err != nil {
		return nil, key, err
	}
	if n := len(req.GetValue()); n > w.MaxValueBytes {
		return nil, key, fault.New(fault.InvalidArgument, ReasonValueTooLarge, "is %d bytes long; at most %d are allowed", n, w.MaxValueBytes).
			WithField("value").WithRemedy("store large data elsewhere and its address here, or raise registry.max_value_bytes")
	}
	stored := key.In(key.Write())
	cmd := &registryv1.Command{
		RequestId: req.GetRequestId(),
		Operations: []*registryv1.Operation{{Op: &registryv1.Operation_Put{Put: &registryv1.Record{
			Table: table, Key: stored, Value: req.GetValue(), Flags: req.GetFlags(), OriginDatacenter: w.Datacenter,
		}}}},
	}
	if req.Cas != nil {
		cmd.Conditions = cas(stored, req.GetCas())
	}
	return cmd, key, nil
}

// Delete answers the command of a deletion.
func (w Writer) Delete(req *registryv1.DeleteRequest) (*registryv1.Command, record.Key, error) {
	key, err := record.ParseKey(req.GetKey(), req.GetScope())
	if err != nil {
		return nil, key, err
	}
	row := &registryv1.RecordKey{Table: table, Key: key.In(key.Write())}
	cmd := &registryv1.Command{RequestId: req.GetRequestId()}
	switch {
	case req.GetRecurse() && req.Cas != nil:
		return nil, key, fault.Invalid("cas", "does not go with recurse").WithRemedy("drop one of the two")
	case req.GetRecurse():
		cmd.Operations = []*registryv1.Operation{{Op: &registryv1.Operation_DeletePrefix{DeletePrefix: row}}}
	default:
		cmd.Operations = []*registryv1.Operation{{Op: &registryv1.Operation_Delete{Delete: row}}}
		if req.Cas != nil {
			cmd.Conditions = cas(row.GetKey(), req.GetCas())
		}
	}
	return cmd, key, nil
}

func cas(stored string, index uint64) []*registryv1.Condition {
	return []*registryv1.Condition{{
		Row: &registryv1.RecordKey{Table: table, Key: stored}, ModifyIndex: index, Reason: ReasonCASMismatch,
	}}
}

// Outcome answers the fault of a command that did not hold, nil if it did.
func Outcome(result *registryv1.CommandResult, key record.Key) error {
	if result.GetFailedReason() == "" {
		return nil
	}
	return fault.New(fault.Aborted, result.GetFailedReason(), "key %q has moved on from that index", key.Bare).
		WithField("cas").WithRemedy("read the key again and retry with its modify_index")
}
