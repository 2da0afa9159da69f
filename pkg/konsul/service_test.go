package konsul_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	failoverrouterv1 "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/pkg/konsul/konsultest"
)

func same(t *testing.T, want, got proto.Message) {
	t.Helper()
	require.Empty(t, cmp.Diff(want, got, protocmp.Transform()))
}

func trustBoth(t *testing.T, gateways ...*konsultest.Gateway) konsul.Config {
	t.Helper()
	cfg := gateways[0].Config()
	var roots []byte
	for _, g := range gateways {
		pem, err := os.ReadFile(g.CAFile)
		require.NoError(t, err)
		roots = append(roots, pem...)
	}
	cfg.CAFile = filepath.Join(t.TempDir(), "both.pem")
	require.NoError(t, os.WriteFile(cfg.CAFile, roots, 0o600))
	return cfg
}

func TestGetAsksTheRightService(t *testing.T) {
	for name, c := range map[string]struct {
		opts *konsul.QueryOptions
		want proto.Message
	}{
		"no options": {nil, &registryv1.QueryServiceRequest{Service: "api", Datacenter: "us-west", ReadMode: registryv1.ReadMode_READ_MODE_DEFAULT, PassingOnly: true}},
		"local": {
			&konsul.QueryOptions{Datacenter: "local"},
			&registryv1.QueryServiceRequest{Service: "api", ReadMode: registryv1.ReadMode_READ_MODE_DEFAULT, PassingOnly: true},
		},
		"another datacenter, unhealthy too": {
			&konsul.QueryOptions{Datacenter: "eu-central", IncludeUnhealthy: true, Tags: []string{"v1"}, ReadMode: konsul.ReadStale},
			&registryv1.QueryServiceRequest{Service: "api", Datacenter: "eu-central", ReadMode: registryv1.ReadMode_READ_MODE_STALE, Tags: []string{"v1"}},
		},
		"all datacenters": {
			&konsul.QueryOptions{Datacenter: "local", AllDatacenters: true, PreferLocal: true, SortByLatency: true},
			&failoverrouterv1.ResolveRequest{Service: "api", AllDatacenters: true, PreferLocal: true, SortByLatency: true},
		},
		"failover": {
			&konsul.QueryOptions{Datacenter: "us-east", Failover: []string{"us-west", "eu-central"}, IncludeUnhealthy: true},
			&failoverrouterv1.ResolveRequest{Service: "api", Datacenter: "us-east", Failover: []string{"us-west", "eu-central"}, IncludeUnhealthy: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			gateway := konsultest.Start(t)
			konsultest.On(gateway, func(*registryv1.QueryServiceRequest) (*registryv1.QueryServiceResponse, error) {
				return &registryv1.QueryServiceResponse{}, nil
			})
			konsultest.On(gateway, func(*failoverrouterv1.ResolveRequest) (*failoverrouterv1.ResolveResponse, error) {
				return &failoverrouterv1.ResolveResponse{}, nil
			})
			cfg := gateway.Config()
			cfg.Datacenter = "us-west"
			client, err := konsul.New(cfg)
			require.NoError(t, err)
			defer func() { require.NoError(t, client.Close()) }()
			services, err := client.Service.Get(t.Context(), "api", c.opts)
			require.NoError(t, err)
			require.Empty(t, services, "an unknown service has no instances; that is no error")
			require.Len(t, gateway.Requests(), 1)
			same(t, c.want, gateway.Requests()[0])
		})
	}
}

func TestGetAnswersEverything(t *testing.T) {
	gateway := konsultest.Start(t)
	konsultest.On(gateway, func(*registryv1.QueryServiceRequest) (*registryv1.QueryServiceResponse, error) {
		return &registryv1.QueryServiceResponse{
			Instances: []*registryv1.ServiceInstance{{
				Node: &registryv1.Node{Name: "n1", Address: "10.0.0.1"}, Datacenter: "us-east", Status: registryv1.HealthStatus_HEALTH_STATUS_WARNING,
				Service: &registryv1.Service{Id: "api-1", Name: "api", Node: "n1", Port: 80, Tags: []string{"v1"}, Meta: map[string]string{"k": "v"}},
			}},
			Meta: &registryv1.QueryMeta{Datacenter: "us-east"},
		}, nil
	})
	client := gateway.Client(t)
	want := &konsul.Service{
		Name: "api", ID: "api-1", Address: "10.0.0.1", Port: 80, Tags: []string{"v1"}, Meta: map[string]string{"k": "v"},
		Datacenter: "us-east", Status: konsul.StatusWarning, Node: "n1", Reason: "local", Weights: konsul.Weights{Passing: 1, Warning: 1},
	}
	got, err := client.Service.Get(t.Context(), "api", nil)
	require.NoError(t, err)
	require.Equal(t, []*konsul.Service{want}, got)
	require.Equal(t, "10.0.0.1:80", got[0].Endpoint())

	want.Reason, want.RoundTrip = "datacenter", konsul.RoundTripUnknown
	got, err = client.Service.Get(t.Context(), "api", &konsul.QueryOptions{Datacenter: "us-east"})
	require.NoError(t, err)
	require.Equal(t, []*konsul.Service{want}, got)
}

func TestResolveKeepsOrderAndDistance(t *testing.T) {
	gateway := konsultest.Start(t)
	answer := &failoverrouterv1.ResolveResponse{
		Endpoints:   []*failoverrouterv1.Endpoint{endpoint("us-east", "a", "h", 0), endpoint("us-west", "b", "h", -1)},
		Datacenters: []*failoverrouterv1.DatacenterOutcome{{Datacenter: "us-east"}, {Datacenter: "us-west"}, {Datacenter: "eu-central", Error: "cut off"}},
	}
	konsultest.On(gateway, func(*failoverrouterv1.ResolveRequest) (*failoverrouterv1.ResolveResponse, error) { return answer, nil })
	got, err := gateway.Client(t).Service.Get(t.Context(), "api", &konsul.QueryOptions{AllDatacenters: true})
	require.NoError(t, err)
	require.Len(t, got, 2)
	require.Equal(t, []any{"a", time.Duration(0), "nearest"}, []any{got[0].ID, got[0].RoundTrip, got[0].Reason})
	require.Equal(t, []any{"b", konsul.RoundTripUnknown, "us-west"}, []any{got[1].ID, got[1].RoundTrip, got[1].Datacenter})
}

func TestNobodyToAskIsAnError(t *testing.T) {
	gateway := konsultest.Start(t)
	konsultest.On(gateway, func(*failoverrouterv1.ResolveRequest) (*failoverrouterv1.ResolveResponse, error) {
		return &failoverrouterv1.ResolveResponse{Datacenters: []*failoverrouterv1.DatacenterOutcome{{Datacenter: "us-east", Error: "cut off"}}}, nil
	})
	_, err := gateway.Client(t).Service.Get(t.Context(), "api", &konsul.QueryOptions{AllDatacenters: true})
	require.Equal(t, konsul.ReasonNoDatacenter, fault.ReasonOf(err))
	require.ErrorContains(t, err, "us-east: cut off")
}

func TestSelectNearest(t *testing.T) {
	s := func(id string, status konsul.Status, roundTrip time.Duration) *konsul.Service {
		return &konsul.Service{ID: id, Status: status, RoundTrip: roundTrip}
	}
	passing := konsul.StatusPassing
	for name, c := range map[string]struct {
		services []*konsul.Service
		want     string
	}{
		"nearest":                  {[]*konsul.Service{s("far", passing, 9), s("near", passing, 3)}, "near"},
		"own before measured":      {[]*konsul.Service{s("near", passing, 1), s("own", passing, 0)}, "own"},
		"measured before unknown":  {[]*konsul.Service{s("unknown", passing, konsul.RoundTripUnknown), s("far", passing, time.Hour)}, "far"},
		"healthy before near":      {[]*konsul.Service{s("near", konsul.StatusCritical, 0), s("warned", konsul.StatusWarning, 5), s("far", passing, 9)}, "far"},
		"warning before no status": {[]*konsul.Service{s("silent", konsul.StatusUnknown, 0), s("warned", konsul.StatusWarning, 5)}, "warned"},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, konsul.SelectNearest(c.services).ID) })
	}
	require.Nil(t, konsul.SelectNearest(nil))
}

func TestSelectNearestSpreadsOverEquals(t *testing.T) {
	services := []*konsul.Service{{ID: "a"}, {ID: "far", RoundTrip: 1}, {ID: "b"}, {ID: "c"}}
	chosen := map[string]int{}
	for range 3000 {
		chosen[konsul.SelectNearest(services).ID]++
	}
	for _, id := range []string{"a", "b", "c"} {
		require.InDelta(t, 1000, chosen[id], 250, "%v", chosen)
	}
	require.Zero(t, chosen["far"])
}

func TestRegisterAndDeregister(t *testing.T) {
	gateway := konsultest.Start(t)
	konsultest.On(gateway, func(*registryv1.RegisterRequest) (*registryv1.RegisterResponse, error) {
		return &registryv1.RegisterResponse{}, nil
	})
	konsultest.On(gateway, func(*registryv1.DeregisterRequest) (*registryv1.DeregisterResponse, error) {
		return nil, fault.New(fault.NotFound, "SERVICE_NOT_FOUND", "no service %q", "api").WithField("service_id").WithRemedy("look")
	})
	client := gateway.Client(t)
	require.NoError(t, client.Service.Register(t.Context(), &konsul.Registration{
		Name: "api", Address: "10.0.0.1", Port: 80, Tags: []string{"v1"}, Datacenter: "us-west",
		Checks: []konsul.Check{{ID: "http", Status: konsul.StatusPassing}},
	}))
	got := konsultest.Last[*registryv1.RegisterRequest](gateway)
	require.NotEmpty(t, got.GetRequestId())
	got.RequestId = ""
	same(t, &registryv1.RegisterRequest{
		Node:       &registryv1.Node{Name: "10.0.0.1", Address: "10.0.0.1"},
		Service:    &registryv1.Service{Id: "api", Name: "api", Node: "10.0.0.1", Address: "10.0.0.1", Port: 80, Tags: []string{"v1"}},
		Checks:     []*registryv1.Check{{Id: "http", ServiceId: "api", Status: registryv1.HealthStatus_HEALTH_STATUS_PASSING}},
		Datacenter: "us-west",
	}, got)

	for field, r := range map[string]*konsul.Registration{
		"Port":    {Name: "a", Address: "h", Port: 70000},
		"Address": {Name: "a"},
		"Checks":  {Name: "a", Address: "h", Checks: []konsul.Check{{ID: "x", Status: "fine"}}},
	} {
		f, ok := fault.As(client.Service.Register(t.Context(), r))
		require.True(t, ok)
		require.Equal(t, field, f.Field())
	}

	f, ok := fault.As(client.Service.Deregister(t.Context(), "api", &konsul.WriteOptions{Datacenter: "us-west"}))
	require.True(t, ok)
	require.Equal(t, []string{"SERVICE_NOT_FOUND", "service_id", "look"}, []string{f.Reason(), f.Field(), f.Remedy()}, "faults arrive whole")
	require.Equal(t, "us-west", konsultest.Last[*registryv1.DeregisterRequest](gateway).GetDatacenter())
}

func TestListServices(t *testing.T) {
	gateway := konsultest.Start(t)
	konsultest.On(gateway, func(*registryv1.ListServicesRequest) (*registryv1.ListServicesResponse, error) {
		return &registryv1.ListServicesResponse{Services: []*registryv1.ServiceSummary{{Name: "api", Tags: []string{"v1"}, Instances: 3, Passing: 2}}}, nil
	})
	got, err := gateway.Client(t).Service.List(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, []*konsul.ServiceSummary{{Name: "api", Tags: []string{"v1"}, Instances: 3, Passing: 2}}, got)
}

func TestFailoverPolicy(t *testing.T) {
	gateway := konsultest.Start(t)
	konsultest.On(gateway, func(*registryv1.SetFailoverPolicyRequest) (*registryv1.SetFailoverPolicyResponse, error) {
		return &registryv1.SetFailoverPolicyResponse{}, nil
	})
	konsultest.On(gateway, func(r *registryv1.GetFailoverPolicyRequest) (*registryv1.GetFailoverPolicyResponse, error) {
		policy := proto.CloneOf(konsultest.Last[*registryv1.SetFailoverPolicyRequest](gateway).GetPolicy())
		policy.ModifyIndex = 7
		return &registryv1.GetFailoverPolicyResponse{Policy: policy}, nil
	})
	client := gateway.Client(t)
	policy := &konsul.FailoverPolicy{Service: "api", Failover: []konsul.FailoverTarget{{Datacenter: "us-west", Targets: 3}, {Datacenter: "eu-central"}}}
	require.NoError(t, client.Service.SetFailoverPolicy(t.Context(), policy))
	got, err := client.Service.GetFailoverPolicy(t.Context(), "api")
	require.NoError(t, err)
	policy.ModifyIndex = 7
	require.Equal(t, policy, got)
}
