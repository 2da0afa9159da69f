package api

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/federation"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/watch"
)

const replicationHeartbeat = time.Second

type replicationService struct {
	federationv1.UnimplementedReplicationServiceServer
	*Core
}

// Replicate streams global records to another datacenter.
func (s *replicationService) Replicate(req *federationv1.ReplicationRequest, stream grpc.ServerStreamingServer[federationv1.ReplicationResponse]) error {
	heartbeat, err := heartbeatOf(req.GetHeartbeat(), replicationHeartbeat)
	if err != nil {
		return err
	}
	check := func() error {
		applied := uint64(0)
		err := s.Store.View(func(r record.Reader) error {
			applied = r.Index()
			return nil
		})
		if err != nil {
			return err
		}
		return s.Federation.CheckSource(req, applied)
	}
	if err := check(); err != nil {
		return err
	}
	if err := s.claim(stream.Context(), req); err != nil {
		return err
	}
	var filters []watch.Filter
	for _, t := range record.Tables().Replicated() {
		filters = append(filters, watch.Filter{Table: t.ID, Prefix: t.GlobalKeys()})
	}
	since := uint64(req.GetLastReplicatedIndex()) //nolint:gosec // CheckSource refused negative ones
	w := watcher{
		Core: s.Core, since: since, heartbeat: heartbeat, filters: filters, fullSync: true,
		send: func(m message) error {
			if m.resync {
				return fault.New(fault.OutOfRange, ReasonResync, "the copy fell behind the stream").WithRemedy("start again from the cursor")
			}
			// The epoch may have moved since the stream began.
			if err := check(); err != nil {
				return err
			}
			return stream.Send(s.response(req, m, m.full && since > 0))
		},
	}
	return w.run(stream.Context())
}

// claim records which registry copies as a datacenter, and refuses a second one of its name. What it says
// counts only if the caller is of that datacenter.
func (s *replicationService) claim(ctx context.Context, req *federationv1.ReplicationRequest) error {
	target, lineage := req.GetTargetDc(), req.GetTargetLineageId()
	if lineage == "" || rpc.CallerFrom(ctx).Peer.Datacenter != target {
		return nil
	}
	var cmd *registryv1.Command
	err := s.Store.View(func(r record.Reader) (err error) {
		cmd, err = federation.Claim(r, target, lineage)
		return err
	})
	if err != nil {
		s.Metrics.secondLineages.Inc()
		s.Log.Error("a second registry copies under a datacenter's name", obs.KeyTargetDC, target, obs.KeyError, err)
		return err
	}
	if cmd == nil {
		return nil
	}
	// A race is settled at the next stream; a leader that is away is no reason not to copy.
	if _, err := s.Propose(ctx, cmd); err != nil {
		s.Log.Warn("could not record which registry copies", obs.KeyTargetDC, target, obs.KeyError, err)
	}
	return nil
}

func (s *replicationService) response(req *federationv1.ReplicationRequest, m message, fullSync bool) *federationv1.ReplicationResponse {
	resp := &federationv1.ReplicationResponse{
		// A copy compares this with where it stands, in pieces too: a piece has the index of the whole.
		CurrentIndex:     int64(m.upTo), //nolint:gosec // Raft indexes stay far below 2^63; the type is the ADR's
		FullSyncRequired: fullSync, Epoch: s.Federation.Epoch(), SourceTime: s.stateTime(), Complete: m.complete,
	}
	for _, row := range m.rows {
		if entry, ok := s.Federation.Entry(row, req.GetPrefixes()); ok {
			resp.Entries = append(resp.Entries, entry)
		}
	}
	return resp
}

// ApplyReplicated commits replicated entries with the cursor that covers them.
func (s *replicationService) ApplyReplicated(ctx context.Context, req *federationv1.ApplyReplicatedRequest) (*federationv1.ApplyReplicatedResponse, error) {
	var cmd *registryv1.Command
	err := s.Store.View(func(r record.Reader) (err error) {
		cmd, err = s.Federation.ApplyReplicated(r, req)
		return err
	})
	if err != nil {
		return nil, err
	}
	result, err := s.commit(ctx, cmd)
	if err != nil {
		return nil, err
	}
	if err := federation.Outcome(result); err != nil {
		return nil, err
	}
	return &federationv1.ApplyReplicatedResponse{Index: result.GetIndex()}, nil
}

// GetCursor answers how far a source has been copied.
func (s *replicationService) GetCursor(_ context.Context, req *federationv1.GetCursorRequest) (*federationv1.GetCursorResponse, error) {
	resp := &federationv1.GetCursorResponse{}
	err := s.Store.View(func(r record.Reader) (err error) {
		resp.Cursor, _, err = federation.Cursor(r, req.GetSourceDc())
		return err
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

type federationService struct {
	federationv1.UnimplementedFederationServiceServer
	*Core
}

// GetFederation answers the federation record as this datacenter knows it.
func (s *federationService) GetFederation(context.Context, *federationv1.GetFederationRequest) (*federationv1.GetFederationResponse, error) {
	f := s.Federation.Snapshot()
	if f == nil {
		return nil, fault.New(fault.Unavailable, ReasonNotFounded, "this datacenter has no federation record yet").WithRetryAfter(200 * time.Millisecond)
	}
	return &federationv1.GetFederationResponse{Federation: f, Time: timestamppb.New(s.Clock.Now())}, nil
}
