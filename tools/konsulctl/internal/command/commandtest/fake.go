// Package commandtest runs konsulctl in tests, against the gateway of a federation that is made up,
// and compares what it says with goldens. Safe for concurrent use.
package commandtest

import (
	"bytes"
	"cmp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	failoverrouterv1 "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul/konsultest"
	"konsul.dev/tools/konsulctl/internal/cli"
	"konsul.dev/tools/konsulctl/internal/command"
)

// Result is what one run of konsulctl did.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Ctl runs konsulctl against a gateway; nil leaves the environment empty.
func Ctl(t *testing.T, g *konsultest.Gateway, input string, args ...string) Result {
	t.Helper()
	environ := map[string]string{}
	if g != nil {
		environ = map[string]string{"KONSUL_ADDR": g.Address, "KONSUL_TOKEN": konsultest.Token, "KONSUL_CA_FILE": g.CAFile}
	}
	var stdout, stderr bytes.Buffer
	code := command.Run(t.Context(), cli.Env{
		In: strings.NewReader(input), Out: &stdout, Err: &stderr,
		Lookup: func(name string) (string, bool) { value, ok := environ[name]; return value, ok },
	}, args)
	return Result{stdout.String(), stderr.String(), code}
}

func at(second int) *timestamppb.Timestamp {
	return timestamppb.New(time.Date(2026, 11, 23, 2, 0, second, 0, time.UTC))
}

// Instance returns an instance of the service api.
func Instance(dc, id string, status registryv1.HealthStatus) *registryv1.ServiceInstance {
	return &registryv1.ServiceInstance{
		Node: &registryv1.Node{Name: "node-" + dc, Address: "10.0.0.1"}, Datacenter: dc, Status: status,
		Service: &registryv1.Service{
			Id: id, Name: "api", Node: "node-" + dc, Port: 8080, Tags: []string{"v1", "http"}, Meta: map[string]string{"team": "web"},
			CreateIndex: 5, ModifyIndex: 6,
		},
	}
}

// Passing is the status of what is well.
const Passing = registryv1.HealthStatus_HEALTH_STATUS_PASSING

// Federation is the gateway of us-west in a federation of three, of which eu-central is cut off.
func Federation(t *testing.T) *konsultest.Gateway {
	t.Helper()
	g := konsultest.Start(t)
	catalog(g)
	nodes(g)
	keys(g)
	locks(g)
	operators(g)
	accessControl(g)
	return g
}

func catalog(g *konsultest.Gateway) {
	konsultest.On(g, func(r *registryv1.QueryServiceRequest) (*registryv1.QueryServiceResponse, error) {
		dc := r.GetDatacenter()
		if dc == "" {
			dc = "us-west"
		}
		answer := &registryv1.QueryServiceResponse{Meta: &registryv1.QueryMeta{Datacenter: dc, Index: 12, KnownLeader: true}}
		if r.GetService() == "api" {
			answer.Instances = append(answer.Instances, Instance(dc, "api-1", Passing))
			if !r.GetPassingOnly() {
				answer.Instances = append(answer.Instances, Instance(dc, "api-2", registryv1.HealthStatus_HEALTH_STATUS_CRITICAL))
			}
		}
		return answer, nil
	})
	konsultest.On(g, func(r *failoverrouterv1.ResolveRequest) (*failoverrouterv1.ResolveResponse, error) {
		if r.GetService() == "nowhere" {
			return &failoverrouterv1.ResolveResponse{Datacenters: []*failoverrouterv1.DatacenterOutcome{{Datacenter: "us-west", Error: "no answer"}}}, nil
		}
		return &failoverrouterv1.ResolveResponse{
			Endpoints: []*failoverrouterv1.Endpoint{
				{Instance: Instance("us-west", "api-1", Passing), Datacenter: "us-west", RoundTrip: durationpb.New(0), Reason: "local"},
				{Instance: Instance("us-east", "api-9", Passing), Datacenter: "us-east", RoundTrip: durationpb.New(31 * time.Millisecond), Reason: "nearest"},
			},
			Datacenters: []*failoverrouterv1.DatacenterOutcome{
				{Datacenter: "us-west", Endpoints: 1}, {Datacenter: "us-east", Endpoints: 1}, {Datacenter: "eu-central", Error: "no gateway answered"},
			},
		}, nil
	})
	konsultest.On(g, func(*registryv1.ListServicesRequest) (*registryv1.ListServicesResponse, error) {
		return &registryv1.ListServicesResponse{Services: []*registryv1.ServiceSummary{
			{Name: "api", Instances: 2, Passing: 1, Tags: []string{"http", "v1"}}, {Name: "payment-api", Instances: 1, Passing: 1},
		}, Meta: &registryv1.QueryMeta{Datacenter: "us-west", Index: 12, KnownLeader: true}}, nil
	})
	konsultest.On(g, func(r *registryv1.GetFailoverPolicyRequest) (*registryv1.GetFailoverPolicyResponse, error) {
		return &registryv1.GetFailoverPolicyResponse{Policy: &registryv1.FailoverPolicy{Service: r.GetService(), Failover: []*registryv1.FailoverTarget{
			{Datacenter: "us-east"}, {Datacenter: "eu-central", Targets: 2},
		}, ModifyIndex: 9}, Meta: &registryv1.QueryMeta{Datacenter: "us-west", Index: 12, KnownLeader: true}}, nil
	})
	konsultest.On(g, func(r *registryv1.RegisterRequest) (*registryv1.RegisterResponse, error) {
		dc := r.GetDatacenter()
		if dc == "" {
			dc = "us-west"
		}
		if r.GetService().GetId() == "taken" && !r.GetReplace() {
			return nil, fault.New(fault.AlreadyExists, "SERVICE_ID_TAKEN", "%q is an instance of service web on node web-1, registered by agent", "taken").
				WithField("service.id").WithRemedy("say that it replaces the other one")
		}
		service := proto.CloneOf(r.GetService())
		service.Id = cmp.Or(service.GetId(), service.GetName())
		return &registryv1.RegisterResponse{Meta: &registryv1.WriteMeta{Datacenter: dc, Index: 13}, Service: service}, nil
	})
	konsultest.On(g, func(r *registryv1.DeregisterRequest) (*registryv1.DeregisterResponse, error) {
		if r.GetServiceId() == "ghost" {
			return nil, fault.New(fault.NotFound, "SERVICE_NOT_FOUND", "no service instance %q", r.GetServiceId()).WithField("service_id")
		}
		return &registryv1.DeregisterResponse{Meta: &registryv1.WriteMeta{Datacenter: "us-west", Index: 14}}, nil
	})
	konsultest.On(g, func(r *registryv1.SetFailoverPolicyRequest) (*registryv1.SetFailoverPolicyResponse, error) {
		if r.GetPolicy().GetService() == "stranded" {
			return nil, fault.New(fault.FailedPrecondition, "PRIMARY_UNREACHABLE", "the primary us-east is not reachable")
		}
		return &registryv1.SetFailoverPolicyResponse{Meta: &registryv1.WriteMeta{Datacenter: "us-east", Index: 15}}, nil
	})
}

func keys(g *konsultest.Gateway) {
	entry := func(key, value string) *registryv1.Entry {
		return &registryv1.Entry{
			Key: key, Value: []byte(value), Scope: registryv1.Scope_SCOPE_GLOBAL, CreateIndex: 3, ModifyIndex: 7, Version: 2,
			OriginDatacenter: "us-east", ModifiedAt: at(1),
		}
	}
	konsultest.On(g, func(r *registryv1.GetRequest) (*registryv1.GetResponse, error) {
		dc := r.GetDatacenter()
		if dc == "" {
			dc = "us-west"
		}
		switch r.GetKey() {
		case "missing":
			return nil, fault.New(fault.NotFound, "KEY_NOT_FOUND", "key %q has no value", r.GetKey()).WithField("key")
		case "denied":
			return nil, fault.New(fault.PermissionDenied, "TOKEN_DENIED", "the token may not read this")
		case "leaderless":
			// The server's pace lies beyond the SDK's patience, so the test does not wait for
			// retries.
			return nil, fault.New(fault.Unavailable, fault.ReasonNoLeader, "no leader").WithRetryAfter(time.Minute)
		case "lost":
			return nil, fault.New(fault.DataLoss, "CHECKSUM", "checksum failed")
		case "bytes":
			return &registryv1.GetResponse{Entry: entry("bytes", "a\x00\n\xff"), Meta: &registryv1.QueryMeta{Datacenter: dc}}, nil
		}
		return &registryv1.GetResponse{Entry: entry(r.GetKey(), "v2.0"), Meta: &registryv1.QueryMeta{Datacenter: dc, Index: 12, KnownLeader: true}}, nil
	})
	konsultest.On(g, func(r *registryv1.SetRequest) (*registryv1.SetResponse, error) {
		if r.Cas != nil && r.GetCas() != 7 {
			return nil, fault.New(fault.Aborted, "CAS_MISMATCH", "key %q has moved on from that index", r.GetKey()).WithField("cas").WithRemedy("read the key again")
		}
		e := entry(r.GetKey(), "")
		if e.Value = nil; r.GetScope() != registryv1.Scope_SCOPE_GLOBAL {
			e.Scope = registryv1.Scope_SCOPE_LOCAL
		}
		return &registryv1.SetResponse{Entry: e, Meta: &registryv1.WriteMeta{Datacenter: "us-east", Index: 7}}, nil
	})
	konsultest.On(g, func(r *registryv1.DeleteRequest) (*registryv1.DeleteResponse, error) {
		answer := &registryv1.DeleteResponse{Deleted: 1, Meta: &registryv1.WriteMeta{Datacenter: "us-west", Index: 8}}
		if r.GetRecurse() {
			answer.Deleted = 3
		}
		return answer, nil
	})
	konsultest.On(g, func(r *registryv1.ListRequest) (*registryv1.ListResponse, error) {
		meta := &registryv1.QueryMeta{Datacenter: "us-west", Index: 12, KnownLeader: true}
		if r.GetSeparator() != "" {
			return &registryv1.ListResponse{Folders: []string{"config/"}, Entries: []*registryv1.Entry{entry("top", "")}, Meta: meta}, nil
		}
		if r.GetPageToken() == "" {
			return &registryv1.ListResponse{Entries: []*registryv1.Entry{entry("config/app/version", "v2.0")}, NextPageToken: "more", Meta: meta}, nil
		}
		return &registryv1.ListResponse{Entries: []*registryv1.Entry{entry("config/motd", strings.Repeat("long\n", 20))}, Meta: meta}, nil
	})
}

func operators(g *konsultest.Gateway) {
	konsultest.On(g, func(*wangossipv1.ListDatacentersRequest) (*wangossipv1.ListDatacentersResponse, error) {
		member := func(status string) []*wangossipv1.Member {
			return []*wangossipv1.Member{{Name: "n1", Address: "10.0.0.1:8302", Status: status}}
		}
		return &wangossipv1.ListDatacentersResponse{Datacenter: "us-west", Datacenters: []*wangossipv1.Datacenter{
			{Name: "ap-south", Id: "id-4", State: wangossipv1.DatacenterState_DATACENTER_STATE_LEFT, StateSince: at(4)},
			{Name: "eu-central", Id: "id-3", State: wangossipv1.DatacenterState_DATACENTER_STATE_FAILED, GatewayAddresses: []string{"10.0.3.1:8443"}, Members: member("failed"), StateSince: at(3)},
			{Name: "us-east", Id: "id-1", State: wangossipv1.DatacenterState_DATACENTER_STATE_ALIVE, RoundTrip: durationpb.New(31 * time.Millisecond), GatewayAddresses: []string{"10.0.1.1:8443", "10.0.1.2:8443"}, Members: member("alive"), Primary: true, StateSince: at(1)},
			{Name: "us-west", Id: "id-2", State: wangossipv1.DatacenterState_DATACENTER_STATE_ALIVE, RoundTrip: durationpb.New(0), GatewayAddresses: []string{"10.0.2.1:8443"}, Members: member("alive"), StateSince: at(2)},
		}}, nil
	})
	konsultest.On(g, func(r *registryv1.ClusterStatusRequest) (*registryv1.ClusterStatusResponse, error) {
		dc := r.GetDatacenter()
		if dc == "" {
			dc = "us-west"
		}
		if dc == "eu-central" {
			return nil, fault.New(fault.FailedPrecondition, "DATACENTER_UNREACHABLE", "no gateway of eu-central answered").WithField("datacenter")
		}
		return &registryv1.ClusterStatusResponse{
			Datacenter: dc, Leader: "n1", Healthy: true, FederationId: "6f1d", PrimaryDatacenter: "us-east", Epoch: 1, Time: at(9),
			Servers: []*registryv1.ServerState{
				{Id: "n1", Address: "10.0.0.1:8300", State: "leader", Voter: true, Term: 2, LastLogIndex: 12, CommitIndex: 12, AppliedIndex: 11, Version: "0.1.0", GrpcAddress: "10.0.0.1:8502", LastContact: durationpb.New(0), LastLogTerm: 2, CommandVersion: 1, Incarnation: "d1"},
				{Id: "n2", Address: "10.0.0.2:8300", State: "unreachable", Voter: true},
				{Id: "n3", Address: "10.0.0.3:8300", State: "follower", Term: 2, LastLogIndex: 12, CommitIndex: 12, AppliedIndex: 12, Version: "0.1.0", GrpcAddress: "10.0.0.3:8502", LastContact: durationpb.New(31 * time.Millisecond), LastLogTerm: 2, CommandVersion: 1, Incarnation: "d3"},
			},
		}, nil
	})
	konsultest.On(g, func(r *registryv1.AddPeerRequest) (*registryv1.AddPeerResponse, error) {
		if r.GetAddress() != "10.0.0.4:8502" {
			return nil, fault.New(fault.FailedPrecondition, "NO_SERVER_THERE", "no registry of this datacenter answers at %q", r.GetAddress()).
				WithField("address").WithRemedy("start the server first; give its gRPC address")
		}
		return &registryv1.AddPeerResponse{Member: &registryv1.Member{Id: "n4", RaftAddress: "10.0.0.4:8300", Address: r.GetAddress(), Version: "0.1.0", CommandVersion: 1}}, nil
	})
	konsultest.On(g, func(r *registryv1.RemovePeerRequest) (*registryv1.RemovePeerResponse, error) {
		if r.GetId() != "n2" {
			return nil, fault.New(fault.NotFound, "UNKNOWN_SERVER", "there is no server %q in this cluster", r.GetId()).WithField("id")
		}
		return &registryv1.RemovePeerResponse{Leader: "n1"}, nil
	})
	konsultest.On(g, func(r *registryv1.TransferLeadershipRequest) (*registryv1.TransferLeadershipResponse, error) {
		return &registryv1.TransferLeadershipResponse{From: "n1", To: cmp.Or(r.GetId(), "n2")}, nil
	})
	settings := &registryv1.AutopilotConfig{
		CleanupDeadServers: proto.Bool(true), DeadServerAfter: durationpb.New(10 * time.Minute), MinQuorum: proto.Uint32(3),
		LastContactThreshold: durationpb.New(time.Second), MaxTrailingLogs: proto.Uint64(4096), ServerStabilizationTime: durationpb.New(10 * time.Second),
	}
	konsultest.On(g, func(*registryv1.GetAutopilotConfigRequest) (*registryv1.GetAutopilotConfigResponse, error) {
		return &registryv1.GetAutopilotConfigResponse{Config: settings}, nil
	})
	konsultest.On(g, func(r *registryv1.SetAutopilotConfigRequest) (*registryv1.SetAutopilotConfigResponse, error) {
		changed := proto.CloneOf(settings)
		proto.Merge(changed, r.GetConfig())
		return &registryv1.SetAutopilotConfigResponse{Config: changed, ModifyIndex: 21}, nil
	})
	konsultest.On(g, func(*registryv1.GetAutopilotStateRequest) (*registryv1.GetAutopilotStateResponse, error) {
		return &registryv1.GetAutopilotStateResponse{Leader: "n1", Voters: []string{"n1", "n2"}, Servers: []*registryv1.ServerHealth{
			{Id: "n1", Address: "10.0.0.1:8300", State: "leader", NodeStatus: "alive", Version: "0.1.0", LastLogTerm: 2, LastLogIndex: 12, Healthy: true, StableSince: at(1)},
			{Id: "n2", Address: "10.0.0.2:8300", State: "voter", NodeStatus: "failed", Version: "0.1.0", LastContact: durationpb.New(11 * time.Minute), LastLogTerm: 2, LastLogIndex: 9, StableSince: at(2)},
		}}, nil
	})
	konsultest.On(g, func(*federationv1.GetFederationRequest) (*federationv1.GetFederationResponse, error) {
		return &federationv1.GetFederationResponse{Federation: &federationv1.Federation{
			Id: "6f1d", Epoch: 1, PrimaryDatacenter: "us-east", Datacenter: "us-west",
			Members: []*federationv1.Datacenter{{Name: "us-east", Id: "id-1", GatewayAddresses: []string{"10.0.1.1:8443"}, Version: "0.1.0", JoinedAt: at(1)}},
			History: []*federationv1.Epoch{{Number: 1, PrimaryDatacenter: "us-east", BeganAt: at(1)}},
		}}, nil
	})
	konsultest.On(g, func(r *cav1.CreateJoinTokenRequest) (*cav1.CreateJoinTokenResponse, error) {
		if r.GetDatacenter() == "us-west" {
			return nil, fault.New(fault.AlreadyExists, "DATACENTER_EXISTS", "us-west is a member").WithField("datacenter")
		}
		return &cav1.CreateJoinTokenResponse{Token: "konsul-join-v1.abc", Id: "t1", ExpiresAt: at(30)}, nil
	})
}
