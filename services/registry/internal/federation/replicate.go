package federation

import (
	"fmt"
	"slices"
	"strings"

	"konsul.dev/pkg/fault"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// Reasons of refused replication.
const (
	// ReasonNotPrimary says that the asked datacenter does not take global writes.
	ReasonNotPrimary = "NOT_PRIMARY"
	// ReasonEpochSuperseded says that one side is at an older epoch than the other.
	ReasonEpochSuperseded = "EPOCH_SUPERSEDED"
	// ReasonSourceBehind says that the source stands before its copy: it lost data or was rebuilt.
	ReasonSourceBehind = "SOURCE_INDEX_BEHIND"
	// ReasonOtherFederation says that the two sides belong to different federations.
	ReasonOtherFederation = "OTHER_FEDERATION"
	// ReasonWrongSource says that the request was meant for another datacenter.
	ReasonWrongSource = "WRONG_SOURCE"
	// ReasonCursorMoved says that another replicator moved the cursor.
	ReasonCursorMoved = "CURSOR_MOVED"
	// ReasonLocalRecord says that a local row was sent as a copy.
	ReasonLocalRecord = "LOCAL_RECORD"
)

const (
	cursors              = registryv1.Table_TABLE_REPLICATION_CURSOR
	maxReplicatedEntries = 10_000
)

// CheckSource returns why a request for replication must be refused, nil if it must not. applied is
// the index of the state that would be sent.
func (v *View) CheckSource(req *federationv1.ReplicationRequest, applied uint64) error {
	epoch := v.Epoch()
	switch {
	case req.GetSourceDc() != v.own.Datacenter:
		return fault.New(fault.FailedPrecondition, ReasonWrongSource, "this is datacenter %s, not %q", v.own.Datacenter, req.GetSourceDc()).WithField("source_dc")
	case req.GetFederationId() != v.own.FederationID:
		return fault.New(fault.FailedPrecondition, ReasonOtherFederation, "this is federation %s, not %q", v.own.FederationID, req.GetFederationId()).WithField("federation_id")
	case req.GetSourceLineageId() != "" && v.Lineage() != "" && req.GetSourceLineageId() != v.Lineage():
		return v.CheckLineage(req.GetSourceLineageId())
	case req.GetEpoch() > epoch:
		return fault.New(fault.FailedPrecondition, ReasonEpochSuperseded, "this datacenter is at epoch %d, the federation is at %d", epoch, req.GetEpoch()).
			WithField("epoch").WithRemedy("another datacenter has become the primary; `konsulctl cluster status --all-datacenters` shows which")
	case !v.IsPrimary():
		return fault.New(fault.FailedPrecondition, ReasonNotPrimary, "datacenter %s is not the primary, %s is", v.own.Datacenter, v.Primary()).
			WithMeta("primary", v.Primary())
	case req.GetLastReplicatedIndex() < 0:
		return fault.Invalid("last_replicated_index", "is negative")
	case uint64(req.GetLastReplicatedIndex()) > applied:
		// An empty or rebuilt source must never make its copies forget what they have.
		return fault.New(fault.FailedPrecondition, ReasonSourceBehind, "the source stands at index %d, its copy at %d", applied, req.GetLastReplicatedIndex()).
			WithField("last_replicated_index").WithRemedy("wait for the source to catch up; if it was rebuilt, restore it from a backup or a copy")
	}
	return nil
}

// Entry returns a row as it is sent to other datacenters; false for what must not leave. Every row
// on its way out passes here.
func (v *View) Entry(row *registryv1.Record, prefixes []string) (*federationv1.ReplicatedEntry, bool) {
	t := v.tables.Of(row.GetTable())
	if !t.Global(row.GetKey()) || t.Scope == record.GlobalPrefixed && !wanted(row.GetKey(), prefixes) {
		return nil, false
	}
	return &federationv1.ReplicatedEntry{
		Type: t.Entry, Key: row.GetKey(), Value: row.GetValue(), Deleted: row.GetDeleted(), Flags: row.GetFlags(), Meta: row.GetMeta(),
		ModifyIndex: int64(row.GetModifyIndex()), //nolint:gosec // Raft indexes stay far below 2^63; the type is the ADR's
		OriginDc:    row.GetOriginDatacenter(), OriginEpoch: row.GetOriginEpoch(), OriginTime: row.GetOriginTime(),
	}, true
}

func wanted(key string, prefixes []string) bool {
	if len(prefixes) == 0 {
		return true
	}
	return slices.ContainsFunc(prefixes, func(p string) bool {
		p = strings.TrimSuffix(p, "*") // The ADR writes "global/*".
		return strings.HasPrefix(key, p) || strings.HasPrefix(key, record.GlobalPrefix+p)
	})
}

// Cursor reads how far a source has been copied.
func Cursor(r record.Reader, source string) (*federationv1.ReplicationCursor, uint64, error) {
	c := &federationv1.ReplicationCursor{SourceDatacenter: source}
	row, err := record.Find(r, cursors, source, c)
	c.SourceDatacenter = source
	return c, row.GetModifyIndex(), err
}

func cursorMoved(source string) error {
	return fault.New(fault.Aborted, ReasonCursorMoved, "the cursor of %s is not where the caller left it", source).
		WithField("expected_index").WithRemedy("read the cursor again; another replicator is at work")
}

// ApplyReplicated returns the command that commits copied rows with the cursor that covers them.
func (v *View) ApplyReplicated(r record.Reader, req *federationv1.ApplyReplicatedRequest) (*registryv1.Command, error) {
	cursor := req.GetCursor()
	switch {
	case req.GetSourceDc() == "" || req.GetSourceDc() == v.own.Datacenter:
		return nil, fault.Invalid("source_dc", "%q is no other datacenter", req.GetSourceDc())
	case cursor.GetSourceDatacenter() != req.GetSourceDc():
		return nil, fault.Invalid("cursor.source_datacenter", "%q is not source_dc, %q", cursor.GetSourceDatacenter(), req.GetSourceDc())
	case cursor.GetIndex() < req.GetExpectedIndex() && cursor.GetEpoch() <= v.Epoch():
		return nil, fault.Invalid("cursor.index", "goes back from %d to %d", req.GetExpectedIndex(), cursor.GetIndex())
	case len(req.GetEntries()) > maxReplicatedEntries:
		return nil, fault.Invalid("entries", "are %d; at most %d are allowed", len(req.GetEntries()), maxReplicatedEntries)
	case cursor.GetEpoch() < v.Epoch():
		return nil, fault.New(fault.FailedPrecondition, ReasonEpochSuperseded, "the entries are of epoch %d, this datacenter is at %d", cursor.GetEpoch(), v.Epoch()).WithField("cursor.epoch")
	}
	stored, rowIndex, err := Cursor(r, req.GetSourceDc())
	if err != nil {
		return nil, err
	}
	if stored.GetIndex() != req.GetExpectedIndex() {
		return nil, cursorMoved(req.GetSourceDc())
	}
	cmd := &registryv1.Command{
		RequestId:  req.GetRequestId(),
		Conditions: []*registryv1.Condition{record.When(cursors, req.GetSourceDc(), rowIndex, ReasonCursorMoved)},
	}
	for i, e := range req.GetEntries() {
		op, err := v.replicateOperation(i, e)
		if err != nil {
			return nil, err
		}
		cmd.Operations = append(cmd.Operations, op)
	}
	move, err := record.Put(cursors, req.GetSourceDc(), v.own.Datacenter, cursor)
	if err != nil {
		return nil, err
	}
	cmd.Operations = append(cmd.Operations, move)
	return cmd, nil
}

func (v *View) replicateOperation(i int, e *federationv1.ReplicatedEntry) (*registryv1.Operation, error) {
	t, ok := v.tables.OfEntry(e.GetType())
	if !ok {
		return nil, fault.Invalid(fmt.Sprintf("entries[%d].type", i), "%s is not copied by this version", e.GetType()).WithRemedy("upgrade this datacenter's registry")
	}
	if !t.Global(e.GetKey()) {
		return nil, fault.New(fault.InvalidArgument, ReasonLocalRecord, "a local row cannot come from another datacenter").
			WithField(fmt.Sprintf("entries[%d].key", i))
	}
	return &registryv1.Operation{Op: &registryv1.Operation_Replicate{Replicate: &registryv1.Record{
		Table: t.ID, Key: e.GetKey(), Value: e.GetValue(), Deleted: e.GetDeleted(), Flags: e.GetFlags(), Meta: e.GetMeta(),
		OriginDatacenter: e.GetOriginDc(), OriginEpoch: e.GetOriginEpoch(),
		OriginIndex: uint64(e.GetModifyIndex()), //nolint:gosec // made from a uint64 by Entry
		OriginTime:  e.GetOriginTime(),
	}}}, nil
}
