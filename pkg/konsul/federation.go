package konsul

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"
)

// DatacenterState is what gossip thinks of a datacenter.
type DatacenterState string

// The states of a datacenter.
const (
	DatacenterUnknown DatacenterState = "unknown"
	// DatacenterAlive has at least one member that answers.
	DatacenterAlive DatacenterState = "alive"
	// DatacenterFailed has no member that answers.
	DatacenterFailed DatacenterState = "failed"
	// DatacenterLeft has left gracefully.
	DatacenterLeft DatacenterState = "left"
)

// Datacenter is a datacenter as the asked one sees it.
type Datacenter struct {
	Name string
	// ID is immutable.
	ID    string
	State DatacenterState
	// RoundTrip is zero in the own datacenter, RoundTripUnknown until it is measured.
	RoundTrip time.Duration
	// GatewayAddresses is where its gateways listen for other datacenters, "host:port".
	GatewayAddresses []string
	Primary          bool
	// Local marks the datacenter that answered.
	Local bool
	// StateSince is when the state last changed, by the answering datacenter's clock.
	StateSince time.Time
}

// DatacentersClient lists the federation's datacenters.
type DatacentersClient struct {
	api wangossipv1.DatacenterServiceClient
}

// List returns every datacenter gossip knows, the own one included, by name.
func (c *DatacentersClient) List(ctx context.Context) ([]*Datacenter, error) {
	answer, err := c.api.ListDatacenters(ctx, &wangossipv1.ListDatacentersRequest{})
	if err != nil {
		return nil, err
	}
	datacenters := make([]*Datacenter, len(answer.GetDatacenters()))
	for i, d := range answer.GetDatacenters() {
		dc := &Datacenter{
			Name: d.GetName(), ID: d.GetId(), State: DatacenterUnknown, RoundTrip: RoundTripUnknown,
			GatewayAddresses: d.GetGatewayAddresses(), Primary: d.GetPrimary(), Local: d.GetName() == answer.GetDatacenter(),
		}
		switch d.GetState() {
		case wangossipv1.DatacenterState_DATACENTER_STATE_ALIVE:
			dc.State = DatacenterAlive
		case wangossipv1.DatacenterState_DATACENTER_STATE_FAILED:
			dc.State = DatacenterFailed
		case wangossipv1.DatacenterState_DATACENTER_STATE_LEFT:
			dc.State = DatacenterLeft
		}
		if d.GetRoundTrip() != nil {
			dc.RoundTrip = d.GetRoundTrip().AsDuration()
		}
		if d.GetStateSince() != nil {
			dc.StateSince = d.GetStateSince().AsTime()
		}
		datacenters[i] = dc
	}
	return datacenters, nil
}

// Server is a registry server and its Raft state.
type Server struct {
	ID string
	// Address is its Raft address.
	Address string
	// State is "leader", "follower", "candidate" or "unreachable".
	State string
	Voter bool
	Term  uint64
	// LastLogIndex, CommitIndex and AppliedIndex say how far it is.
	LastLogIndex, CommitIndex, AppliedIndex uint64
	Version                                 string
}

// ClusterStatus is how a datacenter's registry is doing.
type ClusterStatus struct {
	Datacenter string
	// Leader is the id of the leading server; empty when there is none.
	Leader  string
	Servers []Server
	// Healthy means that nothing is wrong but what Problems warns of.
	Healthy bool
	// Available means that writes and default reads are served: a majority of the voters follows a
	// leader.
	Available bool
	// Problems is what is wrong, the worst first.
	Problems          []HealthProblem
	FederationID      string
	PrimaryDatacenter string
	Epoch             uint64
	// Time is the answering server's clock.
	Time time.Time
}

// HealthProblem is one thing that is wrong with a datacenter.
type HealthProblem struct {
	// Reason is a stable name, such as "SERVER_DOWN".
	Reason, Message, Remedy string
	// Server and Datacenter are whom it is about; empty: the datacenter that was asked.
	Server, Datacenter string
	// Warning means that it makes the datacenter no less healthy.
	Warning bool
}

// ClusterClient asks how registries are doing.
type ClusterClient struct {
	api registryv1.OperatorServiceClient
	cfg Config
}

// Status returns for the registry of one datacenter; empty: the client's. It needs no leader.
func (c *ClusterClient) Status(ctx context.Context, datacenter string) (*ClusterStatus, error) {
	answer, err := c.api.ClusterStatus(ctx, &registryv1.ClusterStatusRequest{Datacenter: c.cfg.datacenter(datacenter)})
	if err != nil {
		return nil, err
	}
	status := &ClusterStatus{
		Datacenter: answer.GetDatacenter(), Leader: answer.GetLeader(), Healthy: answer.GetHealthy(), Available: answer.GetAvailable(),
		FederationID: answer.GetFederationId(), PrimaryDatacenter: answer.GetPrimaryDatacenter(), Epoch: answer.GetEpoch(),
	}
	for _, p := range answer.GetProblems() {
		status.Problems = append(status.Problems, HealthProblem{
			Reason: p.GetReason(), Message: p.GetMessage(), Remedy: p.GetRemedy(), Server: p.GetServer(), Datacenter: p.GetDatacenter(), Warning: p.GetWarning(),
		})
	}
	if answer.GetTime() != nil {
		status.Time = answer.GetTime().AsTime()
	}
	for _, s := range answer.GetServers() {
		status.Servers = append(status.Servers, Server{
			ID: s.GetId(), Address: s.GetAddress(), State: s.GetState(), Voter: s.GetVoter(), Term: s.GetTerm(),
			LastLogIndex: s.GetLastLogIndex(), CommitIndex: s.GetCommitIndex(), AppliedIndex: s.GetAppliedIndex(), Version: s.GetVersion(),
		})
	}
	return status, nil
}

// JoinToken admits one datacenter to the federation, once.
type JoinToken struct {
	ID string
	// Token is the content of the new datacenter's join token file. It is a secret, shown this
	// once.
	Token     string
	ExpiresAt time.Time
}

// CAClient asks the certificate authority.
type CAClient struct{ api cav1.CertificateServiceClient }

// CreateJoinToken makes a token that admits a datacenter, for ttl (0: 1h; at most 24h). Only the
// primary returns. AlreadyExists when the datacenter is a member.
func (c *CAClient) CreateJoinToken(ctx context.Context, datacenter string, ttl time.Duration) (*JoinToken, error) {
	request := &cav1.CreateJoinTokenRequest{Datacenter: datacenter}
	if ttl != 0 {
		request.Ttl = durationpb.New(ttl)
	}
	answer, err := c.api.CreateJoinToken(ctx, request)
	if err != nil {
		return nil, err
	}
	return &JoinToken{ID: answer.GetId(), Token: answer.GetToken(), ExpiresAt: answer.GetExpiresAt().AsTime()}, nil
}
