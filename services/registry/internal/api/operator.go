package api

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// statusTimeout bounds the wait for each server: an operator asks when something is wrong.
const statusTimeout = time.Second

const unreachable = "unreachable"

type operatorService struct {
	registryv1.UnimplementedOperatorServiceServer
	*Core
}

// ServerStatus answers for this server.
func (s *operatorService) ServerStatus(context.Context, *registryv1.ServerStatusRequest) (*registryv1.ServerStatusResponse, error) {
	applied := uint64(0)
	err := s.Store.View(func(r record.Reader) error {
		applied = r.Index()
		return nil
	})
	if err != nil {
		return nil, err
	}
	status := s.Node.Status()
	state := &registryv1.ServerState{
		Id: s.ServerID, State: status.State, Voter: status.Voter, Term: status.Term,
		LastLogIndex: status.LastIndex, CommitIndex: status.CommitIndex, AppliedIndex: applied, Version: s.Version,
	}
	for _, server := range s.Node.Servers() {
		if server.ID == s.ServerID {
			state.Address = server.Address
		}
	}
	return &registryv1.ServerStatusResponse{Server: state}, nil
}

// ClusterStatus asks every server of the datacenter.
func (s *operatorService) ClusterStatus(ctx context.Context, _ *registryv1.ClusterStatusRequest) (*registryv1.ClusterStatusResponse, error) {
	servers := s.Node.Servers()
	resp := &registryv1.ClusterStatusResponse{
		Datacenter: s.Federation.Datacenter(), Leader: s.Node.LeaderID(), Servers: make([]*registryv1.ServerState, len(servers)),
		FederationId: s.Federation.FederationID(), PrimaryDatacenter: s.Federation.Primary(), Epoch: s.Federation.Epoch(),
		Time: timestamppb.New(s.Clock.Now()),
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for i, server := range servers {
		wg.Go(func() { resp.Servers[i] = s.ask(ctx, server) })
	}
	wg.Wait()
	reachable := 0
	for _, server := range resp.GetServers() {
		if server.GetState() != unreachable {
			reachable++
		}
	}
	resp.Healthy = reachable > len(servers)/2 && resp.GetLeader() != ""
	return resp, nil
}

func (s *operatorService) ask(ctx context.Context, server Server) *registryv1.ServerState {
	lost := &registryv1.ServerState{Id: server.ID, Address: server.Address, State: unreachable}
	if server.ID == s.ServerID {
		if own, err := s.ServerStatus(ctx, &registryv1.ServerStatusRequest{}); err == nil {
			return own.GetServer()
		}
		return lost
	}
	conn, err := s.Peers.Server(server.ID)
	if err != nil {
		return lost
	}
	resp, err := registryv1.NewOperatorServiceClient(conn).ServerStatus(ctx, &registryv1.ServerStatusRequest{})
	if err != nil {
		return lost
	}
	return resp.GetServer()
}
