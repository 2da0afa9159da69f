package replication

import (
	"context"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/clock"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	replicatorv1 "konsul.dev/proto/gen/konsul/replicator/v1"
	"konsul.dev/services/registry/internal/changes"
	"konsul.dev/services/registry/internal/federation"
	"konsul.dev/services/registry/internal/record"
)

// Service implements federationv1.ReplicationServiceServer.
type Service struct {
	federationv1.UnimplementedReplicationServiceServer

	Source     changes.Source
	Federation *federation.View
	// Commit commits a command wherever the leader is.
	Commit func(ctx context.Context, cmd *registryv1.Command) (*registryv1.CommandResult, error)
	// StateTime returns up to when what this server shows is known to be the leader's state.
	StateTime func() *timestamppb.Timestamp
	// Replicator is the datacenter's, which may be dead.
	Replicator replicatorv1.StatusServiceClient
	Clock      clock.Clock
	Metrics    *Metrics
	Log        *slog.Logger
}

// Register adds the service and the one that tells of its state to a server.
func (s *Service) Register(server grpc.ServiceRegistrar) {
	federationv1.RegisterReplicationServiceServer(server, s)
	replicatorv1.RegisterStatusServiceServer(server, &statusService{Service: s})
}

// ApplyReplicated commits replicated entries with the cursor that covers them.
func (s *Service) ApplyReplicated(ctx context.Context, req *federationv1.ApplyReplicatedRequest) (*federationv1.ApplyReplicatedResponse, error) {
	var cmd *registryv1.Command
	err := s.Source.Store.View(func(r record.Reader) (err error) {
		cmd, err = s.Federation.ApplyReplicated(r, req)
		return err
	})
	if err != nil {
		return nil, err
	}
	result, err := s.Commit(ctx, cmd)
	if err != nil {
		return nil, err
	}
	if err := federation.Outcome(result); err != nil {
		return nil, err
	}
	return &federationv1.ApplyReplicatedResponse{Index: result.GetIndex()}, nil
}

// GetCursor returns how far a source has been copied.
func (s *Service) GetCursor(_ context.Context, req *federationv1.GetCursorRequest) (*federationv1.GetCursorResponse, error) {
	resp := &federationv1.GetCursorResponse{}
	err := s.Source.Store.View(func(r record.Reader) (err error) {
		resp.Cursor, _, err = federation.Cursor(r, req.GetSourceDc())
		return err
	})
	return resp, err
}
