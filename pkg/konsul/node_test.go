package konsul_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/pkg/konsul/konsultest"
)

func TestRegisterANodeWithWhatRunsOnIt(t *testing.T) {
	g := konsultest.Start(t)
	konsultest.On(g, func(*registryv1.RegisterNodeRequest) (*registryv1.RegisterNodeResponse, error) {
		return &registryv1.RegisterNodeResponse{}, nil
	})
	c := g.Client(t)
	r := &konsul.NodeRegistration{
		Node: konsul.Node{Name: "n1", Address: "10.0.0.1", LivenessTTL: 30 * time.Second}, Datacenter: "us-east",
		Services: []konsul.Registration{
			{Name: "api", ID: "api-1", Port: 80, Weights: &konsul.Weights{Passing: 3}, Checks: []konsul.Check{{ID: "http", TTL: time.Minute, Status: konsul.StatusPassing}}},
			{Name: "web"},
		},
		Checks: []konsul.Check{{ID: "disk", Status: konsul.StatusWarning}},
	}
	require.NoError(t, c.Nodes.Register(t.Context(), r))
	require.Empty(t, cmp.Diff(&registryv1.RegisterNodeRequest{
		Node: &registryv1.Node{Name: "n1", Address: "10.0.0.1", LivenessTtl: durationpb.New(30 * time.Second)}, Datacenter: "us-east",
		Services: []*registryv1.ServiceRegistration{
			{
				Service: &registryv1.Service{Id: "api-1", Name: "api", Node: "n1", Port: 80, Weights: &registryv1.Weights{Passing: 3}},
				Checks:  []*registryv1.Check{{Id: "http", ServiceId: "api-1", Status: registryv1.HealthStatus_HEALTH_STATUS_PASSING, Ttl: durationpb.New(time.Minute)}},
			},
			{Service: &registryv1.Service{Id: "web", Name: "web", Node: "n1"}},
		},
		Checks: []*registryv1.Check{{Id: "disk", Status: registryv1.HealthStatus_HEALTH_STATUS_WARNING}},
	}, konsultest.Last[*registryv1.RegisterNodeRequest](g), protocmp.Transform(), protocmp.IgnoreFields(&registryv1.RegisterNodeRequest{}, "request_id")))

	r.Services[1].Port = -1
	require.Equal(t, fault.InvalidArgument, fault.CodeOf(c.Nodes.Register(t.Context(), r)))
}

func TestHeartbeatsNameTheNodesThatMustRegisterAgain(t *testing.T) {
	g := konsultest.Start(t)
	konsultest.On(g, func(r *registryv1.HeartbeatRequest) (*registryv1.HeartbeatResponse, error) {
		return &registryv1.HeartbeatResponse{Unknown: r.GetNodes()[1:]}, nil
	})
	c := g.Client(t)
	require.NoError(t, c.Nodes.Heartbeat(t.Context(), []string{"a"}, nil))
	err := c.Nodes.Heartbeat(t.Context(), []string{"a", "b"}, nil)
	require.Equal(t, konsul.ReasonNoHeartbeats, fault.ReasonOf(err))
	require.Equal(t, fault.NotFound, fault.CodeOf(err))
	require.ErrorContains(t, err, "b")
}

func TestNodeStatusAndMaintenance(t *testing.T) {
	g := konsultest.Start(t)
	konsultest.On(g, func(r *registryv1.GetNodeRequest) (*registryv1.GetNodeResponse, error) {
		return &registryv1.GetNodeResponse{
			Node: &registryv1.Node{Name: r.GetNode(), LivenessTtl: durationpb.New(time.Second)}, Status: registryv1.HealthStatus_HEALTH_STATUS_CRITICAL,
			Instances: []*registryv1.ServiceInstance{{Service: &registryv1.Service{Id: "api-1", Weights: &registryv1.Weights{Passing: 5, Warning: 0}}}},
		}, nil
	})
	konsultest.On(g, func(*registryv1.SetMaintenanceRequest) (*registryv1.SetMaintenanceResponse, error) {
		return &registryv1.SetMaintenanceResponse{}, nil
	})
	konsultest.On(g, func(*registryv1.UpdateChecksRequest) (*registryv1.UpdateChecksResponse, error) {
		return &registryv1.UpdateChecksResponse{}, nil
	})
	c := g.Client(t)
	node, err := c.Nodes.Get(t.Context(), "n1", nil)
	require.NoError(t, err)
	require.Equal(t, konsul.Node{Name: "n1", LivenessTTL: time.Second}, node.Node)
	require.Equal(t, konsul.StatusCritical, node.Status)
	require.Equal(t, konsul.Weights{Passing: 5}, node.Services[0].Weights)

	require.NoError(t, c.Nodes.Maintain(t.Context(), "n1", true, "disk", nil))
	require.NoError(t, c.Service.Maintain(t.Context(), "api-1", false, "", &konsul.WriteOptions{Datacenter: "us-east"}))
	last := konsultest.Last[*registryv1.SetMaintenanceRequest](g)
	require.Equal(t, "api-1", last.GetServiceId())
	require.Equal(t, "us-east", last.GetDatacenter())
	require.NoError(t, c.Service.Report(t.Context(), []konsul.CheckReport{{Node: "n1", CheckID: "disk", Status: konsul.StatusPassing}}, nil))
	require.Equal(t, fault.InvalidArgument, fault.CodeOf(c.Service.Report(t.Context(), []konsul.CheckReport{{Node: "n1", CheckID: "disk"}}, nil)))
}

func TestQueriesOfOneDatacenterSelectFurther(t *testing.T) {
	g := konsultest.Start(t)
	konsultest.On(g, func(*registryv1.QueryServiceRequest) (*registryv1.QueryServiceResponse, error) {
		return &registryv1.QueryServiceResponse{}, nil
	})
	c := g.Client(t)
	opts := &konsul.QueryOptions{Statuses: []konsul.Status{konsul.StatusWarning}, Meta: map[string]string{"a": "b"}, NodeMeta: map[string]string{"c": "d"}, Filter: "Service.Port == 80"}
	_, err := c.Service.Get(t.Context(), "api", opts)
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(&registryv1.QueryServiceRequest{
		Service: "api", Statuses: []registryv1.HealthStatus{registryv1.HealthStatus_HEALTH_STATUS_WARNING},
		Meta: map[string]string{"a": "b"}, NodeMeta: map[string]string{"c": "d"}, Filter: "Service.Port == 80",
		ReadMode: registryv1.ReadMode_READ_MODE_DEFAULT,
	}, konsultest.Last[*registryv1.QueryServiceRequest](g), protocmp.Transform()))
	opts.AllDatacenters = true
	_, err = c.Service.Get(t.Context(), "api", opts)
	require.Equal(t, fault.InvalidArgument, fault.CodeOf(err))
}
