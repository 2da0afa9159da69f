// Package sink writes copied records into this datacenter's registry, and reads there what is known
// of the federation.
//
// Entries and the cursor that covers them are committed together, on condition that the stored
// cursor is the one expected: several replicators may run, and only one makes progress. The answer
// Aborted says that another one did. Safe for concurrent use.
package sink

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/requestid"
	"konsul.dev/services/replicator/internal/cursor"
)

// ReasonNoFederation means that the local registry has no federation record yet.
const ReasonNoFederation = "NO_FEDERATION_RECORD"

// Sink is the local registry. Make one with New.
type Sink struct {
	federation  federationv1.FederationServiceClient
	replication federationv1.ReplicationServiceClient
	limits      Limits
	timeout     time.Duration
}

// New returns a sink that calls the registry over conn and gives every call at most timeout.
func New(conn grpc.ClientConnInterface, limits Limits, timeout time.Duration) *Sink {
	return &Sink{
		federation:  federationv1.NewFederationServiceClient(conn),
		replication: federationv1.NewReplicationServiceClient(conn),
		limits:      limits,
		timeout:     timeout,
	}
}

// Federation reads the federation record.
func (s *Sink) Federation(ctx context.Context) (*federationv1.Federation, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	resp, err := s.federation.GetFederation(ctx, &federationv1.GetFederationRequest{})
	if err != nil {
		return nil, fmt.Errorf("read federation record: %w", err)
	}
	if resp.GetFederation().GetPrimaryDatacenter() == "" {
		return nil, fault.New(fault.Unavailable, ReasonNoFederation, "the local registry has no federation record yet")
	}
	return resp.GetFederation(), nil
}

// Cursor reads how far this datacenter has copied source. The position knows at least epoch.
func (s *Sink) Cursor(ctx context.Context, source string, epoch uint64) (cursor.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	resp, err := s.replication.GetCursor(ctx, &federationv1.GetCursorRequest{SourceDc: source})
	if err != nil {
		return cursor.Position{}, fmt.Errorf("read cursor: %w", err)
	}
	return cursor.FromProto(source, resp.GetCursor(), epoch), nil
}

// Apply commits entries and moves the cursor from stored to next. What exceeds the limits is
// committed in several batches of which the last moves the cursor. With no entries it moves the
// cursor alone. It calls applied after each commit.
func (s *Sink) Apply(ctx context.Context, entries []*federationv1.ReplicatedEntry, stored, next cursor.Position, applied func([]*federationv1.ReplicatedEntry)) error {
	batches := split(entries, s.limits)
	if len(batches) == 0 {
		batches = append(batches, nil)
	}
	for i, batch := range batches {
		at := stored
		if i == len(batches)-1 {
			at = next
		}
		if err := s.commit(ctx, batch, stored.Index, at); err != nil {
			return err
		}
		applied(batch)
	}
	return nil
}

func (s *Sink) commit(ctx context.Context, batch []*federationv1.ReplicatedEntry, expected uint64, at cursor.Position) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	_, err := s.replication.ApplyReplicated(ctx, &federationv1.ApplyReplicatedRequest{
		SourceDc:      at.Source,
		Entries:       batch,
		ExpectedIndex: expected,
		Cursor:        at.Proto(),
		RequestId:     requestid.New(),
	})
	if err != nil {
		return fmt.Errorf("apply %d entries: %w", len(batch), err)
	}
	return nil
}
