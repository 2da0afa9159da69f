// Package cursor decides what a message from a source means for the copy in this datacenter.
//
// It is pure: a position is a value, a message is judged against it, and the outcome is the next
// position or the reason to refuse. It promises that a position never moves backwards, that an
// older epoch is never followed, and that only a complete message moves it, so that a batch cut in
// pieces is copied again from its beginning after an interruption rather than lost in its middle.
// A batch in many pieces ends in a position as one in a single message does.
package cursor

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"

	"konsul.dev/pkg/fault"
)

// Reasons to refuse a source. They are also the reasons with which a source refuses us.
const (
	// ReasonEpochSuperseded means the source speaks for an epoch that has ended.
	ReasonEpochSuperseded = "EPOCH_SUPERSEDED"
	// ReasonSourceIndexBehind means the source has less than was copied from it: it was rebuilt or
	// restored.
	ReasonSourceIndexBehind = "SOURCE_INDEX_BEHIND"
	// ReasonOtherFederation means the source belongs to another federation.
	ReasonOtherFederation = "OTHER_FEDERATION"
)

// Position says how far this datacenter has copied a source.
type Position struct {
	// Source is the datacenter copied from.
	Source string
	// Index is the source's index up to which everything is here.
	Index uint64
	// Epoch is the highest epoch known.
	Epoch uint64
	// Time is the source's clock at Index; zero when nothing has been copied.
	Time time.Time
	// Current is this datacenter's clock when everything of the source was last known to be here;
	// zero when it is not known.
	Current time.Time
	// FullSync is this datacenter's clock when everything was last copied over copies that were
	// here: what the source deleted before may still be here. Zero: never.
	FullSync time.Time
}

// Lineages are the histories of the two registries, as the copying one knows them; empty: not
// known.
type Lineages struct{ Source, Target string }

// FromProto reads a stored cursor of source. The position's epoch is at least epoch, the one of the
// federation record: a datacenter that knows of a newer epoch must not follow an older one.
func FromProto(source string, stored *federationv1.ReplicationCursor, epoch uint64) Position {
	p := Position{Source: source, Index: stored.GetIndex(), Epoch: max(stored.GetEpoch(), epoch)}
	p.Time, p.Current, p.FullSync = fromProto(stored.GetSourceTime()), fromProto(stored.GetCurrentAt()), fromProto(stored.GetFullSyncAt())
	return p
}

// Proto returns the position as the registry stores it.
func (p Position) Proto() *federationv1.ReplicationCursor {
	return &federationv1.ReplicationCursor{
		SourceDatacenter: p.Source, Index: p.Index, Epoch: p.Epoch,
		SourceTime: toProto(p.Time), CurrentAt: toProto(p.Current), FullSyncAt: toProto(p.FullSync),
	}
}

func fromProto(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func toProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// Accept returns where the copy stands once the entries of a message that arrived at a time are
// applied. A FailedPrecondition fault says why the source must not be followed; the copy stays as
// it is then.
func (p Position) Accept(m *federationv1.ReplicationResponse, arrived time.Time) (Position, error) {
	if m.GetEpoch() < p.Epoch {
		return p, fault.New(fault.FailedPrecondition, ReasonEpochSuperseded,
			"%s speaks for epoch %d, but epoch %d has begun", p.Source, m.GetEpoch(), p.Epoch).
			WithRemedy("demote " + p.Source + ", or wait until it has learnt who the primary is")
	}
	// A piece of a full sync that an older version sends has no index: where the source stands is
	// said by the message that completes it, which is judged as any other.
	unsaid := m.GetCurrentIndex() == 0 && !m.GetComplete()
	if m.GetCurrentIndex() < 0 || uint64(m.GetCurrentIndex()) < p.Index && !unsaid {
		return p, fault.New(fault.FailedPrecondition, ReasonSourceIndexBehind,
			"%s is at index %d, but index %d was copied from it: it was rebuilt or restored", p.Source, m.GetCurrentIndex(), p.Index).
			WithRemedy("the copies are kept; restore " + p.Source + " from its newest backup with `konsulctl backup restore`")
	}
	next := p
	next.Epoch = m.GetEpoch()
	if !m.GetComplete() {
		return next, nil
	}
	next.Index = uint64(m.GetCurrentIndex())
	if m.GetSourceTime() != nil {
		next.Time = m.GetSourceTime().AsTime()
	}
	if arrived.After(next.Current) {
		next.Current = arrived
	}
	if m.GetFullSyncRequired() && p.Index > 0 {
		next.FullSync = arrived
	}
	return next, nil
}

// MustStore reports whether going from stored to p must be written now although no entry came with
// it. Writing each heartbeat would cost a commit a second. Never writing would make the copy look
// older than it is to everybody who reads the stored position, and a restart ask for more than the
// source keeps.
func (p Position) MustStore(stored Position, age, every time.Duration) bool {
	moved := p.Index > stored.Index || p.Current.After(stored.Current)
	return p.Epoch > stored.Epoch || moved && age >= every
}
