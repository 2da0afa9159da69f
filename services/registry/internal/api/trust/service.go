package trust

import (
	"context"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/api"
	"konsul.dev/services/registry/internal/federation"
	"konsul.dev/services/registry/internal/record"
)

// Service is the TrustService, for the datacenter's ca.
type Service struct {
	registryv1.UnimplementedTrustServiceServer
	*api.Core
	Joiner *federation.Joiner
}

// PutJoinToken stores a fresh join token.
func (s *Service) PutJoinToken(ctx context.Context, req *registryv1.PutJoinTokenRequest) (*registryv1.PutJoinTokenResponse, error) {
	cmd, err := s.Joiner.PutToken(req)
	if err != nil {
		return nil, err
	}
	index, err := s.trust(ctx, cmd)
	return &registryv1.PutJoinTokenResponse{Index: index}, err
}

// AdmitDatacenter consumes a join token and records the new member.
func (s *Service) AdmitDatacenter(ctx context.Context, req *registryv1.AdmitDatacenterRequest) (*registryv1.AdmitDatacenterResponse, error) {
	var cmd *registryv1.Command
	err := s.Store.View(func(r record.Reader) (err error) {
		cmd, err = s.Joiner.Admit(r, req, s.Clock.Now())
		return err
	})
	if err != nil {
		return nil, err
	}
	index, err := s.trust(ctx, cmd)
	return &registryv1.AdmitDatacenterResponse{Index: index}, err
}

// GetJoinToken reads a join token.
func (s *Service) GetJoinToken(_ context.Context, req *registryv1.GetJoinTokenRequest) (*registryv1.GetJoinTokenResponse, error) {
	resp := &registryv1.GetJoinTokenResponse{}
	err := s.Store.View(func(r record.Reader) (err error) {
		resp.Token, err = federation.GetToken(r, req.GetId())
		return err
	})
	return resp, err
}

// PublishRoots makes the ca's trust anchors known.
func (s *Service) PublishRoots(ctx context.Context, req *registryv1.PublishRootsRequest) (*registryv1.PublishRootsResponse, error) {
	var cmd *registryv1.Command
	resp := &registryv1.PublishRootsResponse{}
	err := s.Store.View(func(r record.Reader) (err error) {
		cmd, err = s.Joiner.PublishRoots(r, req)
		resp.Index = r.Index()
		return err
	})
	if err != nil || cmd == nil {
		return resp, err
	}
	resp.Index, err = s.trust(ctx, cmd)
	return resp, err
}

func (s *Service) trust(ctx context.Context, cmd *registryv1.Command) (uint64, error) {
	result, err := s.Commit(ctx, cmd)
	if err != nil {
		return 0, err
	}
	return result.GetIndex(), federation.Outcome(result)
}
