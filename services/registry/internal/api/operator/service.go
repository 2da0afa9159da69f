package operator

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/api"
	"konsul.dev/services/registry/internal/member"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/skew"
)

// statusTimeout bounds the wait for each server: an operator asks when something is wrong.
const statusTimeout = time.Second

// ProblemClocks says that a clock differs from this server's by more than clocks should.
const ProblemClocks = "CLOCK_DIFFERENCE"

// Node is this server's Raft node.
type Node interface {
	Status() member.Status
	Servers() []member.Server
	LeaderID() string
}

// Peers are ways to the datacenter's other servers.
type Peers interface {
	Server(id string) (grpc.ClientConnInterface, error)
}

// Clocks are those of other servers and datacenters, compared with this server's.
type Clocks interface {
	// Of returns the latest difference of a peer; false when there is none.
	Of(peer skew.Peer) (skew.Difference, bool)
	// Notable returns the differences that are more than they should be, the largest first.
	Notable() []skew.Difference
}

// Service is the OperatorService.
type Service struct {
	registryv1.UnimplementedOperatorServiceServer
	*api.Core
	ServerID, Version string
	Raft              Node
	Cluster           Cluster
	Members           *member.View
	Peers             Peers
	Clocks            Clocks
}

// ServerStatus returns for this server.
func (s *Service) ServerStatus(context.Context, *registryv1.ServerStatusRequest) (*registryv1.ServerStatusResponse, error) {
	applied := uint64(0)
	err := s.Store.View(func(r record.Reader) error {
		applied = r.Index()
		return nil
	})
	if err != nil {
		return nil, err
	}
	status := s.Raft.Status()
	state := &registryv1.ServerState{
		Id: s.ServerID, State: status.State, Voter: status.Voter, Term: status.Term,
		LastLogIndex: status.LastIndex, LastLogTerm: status.LastTerm, CommitIndex: status.CommitIndex, AppliedIndex: applied, Version: s.Version,
	}
	own := s.Cluster.Greeting().GetSelf()
	state.GrpcAddress, state.CommandVersion, state.Incarnation = own.GetAddress(), own.GetCommandVersion(), own.GetIncarnation()
	now := s.Clock.Now()
	if fresh, _ := s.Node.Freshness(now); !fresh.IsZero() {
		state.LastContact = durationpb.New(max(0, now.Sub(fresh)))
	}
	for _, server := range s.Raft.Servers() {
		if server.ID == s.ServerID {
			state.Address = server.Address
		}
	}
	return &registryv1.ServerStatusResponse{Server: state, Time: timestamppb.New(s.Clock.Now())}, nil
}

// ClusterStatus asks every server of the datacenter.
func (s *Service) ClusterStatus(ctx context.Context, _ *registryv1.ClusterStatusRequest) (*registryv1.ClusterStatusResponse, error) {
	servers := s.Raft.Servers()
	resp := &registryv1.ClusterStatusResponse{
		Datacenter: s.Federation.Datacenter(), Leader: s.Raft.LeaderID(), Servers: make([]*registryv1.ServerState, len(servers)),
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
	var problems []*registryv1.HealthProblem
	resp.Available, problems = member.Judge(resp.GetDatacenter(), resp.GetLeader(), resp.GetServers())
	resp.Healthy = resp.GetAvailable() && len(problems) == 0
	for _, d := range s.Clocks.Notable() {
		problem := &registryv1.HealthProblem{
			Reason: ProblemClocks, Message: d.Describe(), Remedy: "synchronise the clocks (NTP): certificates, tokens and lag are judged by them",
			Server: d.Peer.Server, Warning: true,
		}
		if d.Peer.Server == "" {
			problem.Datacenter = d.Peer.Datacenter
		}
		problems = append(problems, problem)
	}
	resp.Problems = problems
	return resp, nil
}

func (s *Service) ask(ctx context.Context, server member.Server) *registryv1.ServerState {
	row := s.Members.Server(server.ID)
	lost := &registryv1.ServerState{
		Id: server.ID, Address: server.Address, State: member.Unreachable, Voter: server.Voter,
		GrpcAddress: row.GetAddress(), Version: row.GetVersion(), CommandVersion: row.GetCommandVersion(), Incarnation: row.GetIncarnation(),
	}
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
	state := resp.GetServer()
	if d, ok := s.Clocks.Of(skew.Peer{Datacenter: s.Federation.Datacenter(), Server: server.ID}); ok {
		state.ClockDifference = durationpb.New(d.By)
	}
	return state
}

// AddPeer adds the server at an address.
func (s *Service) AddPeer(ctx context.Context, req *registryv1.AddPeerRequest) (*registryv1.AddPeerResponse, error) {
	if err := config.CheckAddress("address", req.GetAddress()); err != nil {
		return nil, err
	}
	m, err := s.Cluster.Add(ctx, req.GetAddress(), req.GetId())
	return &registryv1.AddPeerResponse{Member: m}, err
}

// RemovePeer removes a server.
func (s *Service) RemovePeer(ctx context.Context, req *registryv1.RemovePeerRequest) (*registryv1.RemovePeerResponse, error) {
	if req.GetId() == "" {
		return nil, fault.Invalid("id", "is empty").WithRemedy("name a server of `konsulctl operator raft list-peers`")
	}
	if err := s.Cluster.Remove(ctx, req.GetId()); err != nil {
		return nil, err
	}
	return &registryv1.RemovePeerResponse{Leader: s.Raft.LeaderID()}, nil
}

// TransferLeadership makes another server the leader.
func (s *Service) TransferLeadership(ctx context.Context, req *registryv1.TransferLeadershipRequest) (*registryv1.TransferLeadershipResponse, error) {
	from := cmp.Or(req.GetFrom(), s.ServerID)
	if !slices.ContainsFunc(s.Raft.Servers(), func(server member.Server) bool { return server.ID == from }) {
		return nil, fault.Invalid("from", "%q is no server of this cluster", from).WithRemedy("see `konsulctl operator raft list-peers`")
	}
	if from != s.ServerID && req.GetId() == "" { // It has moved since the request came in.
		return &registryv1.TransferLeadershipResponse{From: from, To: s.ServerID}, nil
	}
	to, err := s.Cluster.Transfer(ctx, req.GetId())
	return &registryv1.TransferLeadershipResponse{From: from, To: to}, err
}

// GetAutopilotConfig returns the settings in force.
func (s *Service) GetAutopilotConfig(context.Context, *registryv1.GetAutopilotConfigRequest) (*registryv1.GetAutopilotConfigResponse, error) {
	settings, modified := s.Members.Autopilot()
	return &registryv1.GetAutopilotConfigResponse{Config: settings, ModifyIndex: modified}, nil
}

// SetAutopilotConfig changes settings.
func (s *Service) SetAutopilotConfig(ctx context.Context, req *registryv1.SetAutopilotConfigRequest) (*registryv1.SetAutopilotConfigResponse, error) {
	if err := api.CheckRequestID(req.GetRequestId()); err != nil {
		return nil, err
	}
	cmd, settings, err := s.Members.SetAutopilot(req.GetConfig(), req.Cas, s.Federation.Datacenter())
	if err != nil {
		return nil, err
	}
	cmd.RequestId = req.GetRequestId()
	result, err := s.Propose(ctx, cmd)
	if err != nil {
		return nil, err
	}
	if result.GetFailedReason() != "" {
		return nil, fault.New(fault.Aborted, member.ReasonSettingChanged, "the autopilot's settings were changed meanwhile").WithRemedy("read them again, then repeat the change")
	}
	return &registryv1.SetAutopilotConfigResponse{Config: settings, ModifyIndex: result.GetIndex()}, nil
}

// ReasonNotLookedYet says that a leader has just begun and has not asked the servers yet.
const ReasonNotLookedYet = "AUTOPILOT_STARTING"

// GetAutopilotState returns what the leader thinks of every server.
func (s *Service) GetAutopilotState(context.Context, *registryv1.GetAutopilotStateRequest) (*registryv1.GetAutopilotStateResponse, error) {
	if state := s.Cluster.Health(); state != nil {
		return state, nil
	}
	return nil, fault.New(fault.Unavailable, ReasonNotLookedYet, "the leader has just begun and has not asked the servers yet").
		WithRetryAfter(time.Second)
}
