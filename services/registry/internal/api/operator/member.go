package operator

import (
	"context"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Cluster is what the handlers ask of this server's place among the others.
type Cluster interface {
	Greeting() *registryv1.GreetResponse
	Greeted(m *registryv1.Member)
	Join(ctx context.Context, req *registryv1.JoinRequest) (*registryv1.JoinResponse, error)
	Announce(ctx context.Context, m *registryv1.Member) error
	Admit(generation uint64, members []*registryv1.Member) error
	Add(ctx context.Context, address, id string) (*registryv1.Member, error)
	Remove(ctx context.Context, id string) error
	Transfer(ctx context.Context, id string) (string, error)
	// Health is nil while this server does not lead, or has not looked yet.
	Health() *registryv1.GetAutopilotStateResponse
}

// Members is the MemberService, by which the datacenter's servers find each other.
type Members struct {
	registryv1.UnimplementedMemberServiceServer
	Cluster Cluster
}

// Greet returns who this server is, and learns where the caller is.
func (s *Members) Greet(_ context.Context, req *registryv1.GreetRequest) (*registryv1.GreetResponse, error) {
	s.Cluster.Greeted(req.GetSelf())
	return s.Cluster.Greeting(), nil
}

// Join makes the caller a member without a vote.
func (s *Members) Join(ctx context.Context, req *registryv1.JoinRequest) (*registryv1.JoinResponse, error) {
	return s.Cluster.Join(ctx, req)
}

// Announce records the caller's row.
func (s *Members) Announce(ctx context.Context, req *registryv1.AnnounceRequest) (*registryv1.AnnounceResponse, error) {
	return &registryv1.AnnounceResponse{}, s.Cluster.Announce(ctx, req.GetMember())
}

// Admit is told by the leader.
func (s *Members) Admit(_ context.Context, req *registryv1.AdmitRequest) (*registryv1.AdmitResponse, error) {
	return &registryv1.AdmitResponse{}, s.Cluster.Admit(req.GetGeneration(), req.GetMembers())
}
