package registry_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry"
	"konsul.dev/services/registry/internal/catalog"
	"konsul.dev/services/registry/registrytest"
)

const (
	passing  = registryv1.HealthStatus_HEALTH_STATUS_PASSING
	warning  = registryv1.HealthStatus_HEALTH_STATUS_WARNING
	critical = registryv1.HealthStatus_HEALTH_STATUS_CRITICAL
)

// fleet is a node with services called name-0, name-1, ... that all have a check "c" of a TTL; 0:
// none.
func fleet(node, name string, count int, ttl time.Duration) *registryv1.RegisterNodeRequest {
	req := &registryv1.RegisterNodeRequest{Node: &registryv1.Node{Name: node, Address: "10.0.0.1", Meta: map[string]string{"rack": node}}}
	for i := range count {
		s := &registryv1.ServiceRegistration{Service: &registryv1.Service{
			Id: fmt.Sprintf("%s-%d", name, i), Name: name, Port: uint32(8000 + i), Tags: []string{"http", fmt.Sprint("shard-", i%2)},
			Meta: map[string]string{"version": fmt.Sprint(i % 3)}, Weights: &registryv1.Weights{Passing: uint32(i + 1)},
		}}
		if ttl > 0 {
			s.Checks = []*registryv1.Check{{Id: "c", Status: passing, Ttl: durationpb.New(ttl)}}
		}
		req.Services = append(req.Services, s)
	}
	return req
}

func registerFleet(t *testing.T, c *registrytest.Client, req *registryv1.RegisterNodeRequest) *registryv1.RegisterNodeResponse {
	t.Helper()
	resp, err := c.Catalog.RegisterNode(c.Ctx(), req)
	require.NoError(t, err)
	return resp
}

func instance(t *testing.T, c *registrytest.Client, id string) *registryv1.ServiceInstance {
	t.Helper()
	resp, err := c.Catalog.GetService(c.Ctx(), &registryv1.GetServiceRequest{ServiceId: id})
	require.NoError(t, err)
	return resp.GetInstance()
}

// becomes waits until an instance has a status.
func becomes(t *testing.T, c *registrytest.Client, id string, want registryv1.HealthStatus) *registryv1.ServiceInstance {
	t.Helper()
	var got *registryv1.ServiceInstance
	registrytest.Eventually(t, func() error {
		resp, err := c.Catalog.GetService(c.Ctx(), &registryv1.GetServiceRequest{ServiceId: id})
		if got = resp.GetInstance(); err == nil && got.GetStatus() != want {
			err = fmt.Errorf("%s is %s", id, got.GetStatus())
		}
		return err
	})
	return got
}

// during does something every few milliseconds until it is stopped.
func during(t *testing.T, do func() error) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				_ = do() // While there is no leader it fails; the next one comes soon.
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

func TestANodeComesAndGoesInOneCommand(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	cl := c.Client(c.Follower())
	req := fleet("n1", "api", 10, 0)
	req.Checks = []*registryv1.Check{{Id: "disk", Status: passing}}
	written := registerFleet(t, cl, req)
	query, err := cl.Catalog.QueryService(cl.Ctx(), &registryv1.QueryServiceRequest{Service: "api", PassingOnly: true})
	require.NoError(t, err)
	require.Len(t, query.GetInstances(), 10)
	for _, i := range query.GetInstances() {
		require.Equal(t, written.GetMeta().GetIndex(), i.GetService().GetModifyIndex(), "one command")
		require.Equal(t, "10.0.0.1", i.GetService().GetAddress())
	}
	again := registerFleet(t, cl, req)
	require.Equal(t, written.GetMeta().GetIndex(), again.GetMeta().GetIndex(), "nothing changed, nothing is committed")

	node, err := cl.Catalog.GetNode(cl.Ctx(), &registryv1.GetNodeRequest{Node: "n1"})
	require.NoError(t, err)
	require.Len(t, node.GetInstances(), 10)
	require.Equal(t, "disk", node.GetChecks()[0].GetId())
	_, err = cl.Catalog.UpdateChecks(cl.Ctx(), &registryv1.UpdateChecksRequest{Updates: []*registryv1.CheckUpdate{{Node: "n1", CheckId: "disk", Status: warning, Output: "90 %"}}})
	require.NoError(t, err)
	require.Equal(t, warning, instance(t, cl, "api-3").GetStatus(), "a node's check is about all its instances")
	_, err = cl.Catalog.DeregisterCheck(cl.Ctx(), &registryv1.DeregisterCheckRequest{Node: "n1", CheckId: "disk"})
	require.NoError(t, err)
	require.Equal(t, passing, instance(t, cl, "api-3").GetStatus())
	_, err = cl.Catalog.DeregisterCheck(cl.Ctx(), &registryv1.DeregisterCheckRequest{Node: "n1", CheckId: "disk"})
	require.Equal(t, catalog.ReasonCheckNotFound, fault.ReasonOf(err))

	gone := &registryv1.DeregisterNodeRequest{Node: "n1", RequestId: "once"}
	for range 2 {
		_, err = cl.Catalog.DeregisterNode(cl.Ctx(), gone)
		require.NoError(t, err, "the same request again hears the same")
	}
	_, err = cl.Catalog.DeregisterNode(cl.Ctx(), &registryv1.DeregisterNodeRequest{Node: "n1"})
	require.Equal(t, catalog.ReasonNodeNotFound, fault.ReasonOf(err))
	_, err = cl.Catalog.GetNode(cl.Ctx(), &registryv1.GetNodeRequest{Node: "n1"})
	require.Equal(t, catalog.ReasonNodeNotFound, fault.ReasonOf(err))
	_, err = cl.Catalog.GetService(cl.Ctx(), &registryv1.GetServiceRequest{ServiceId: "api-0"})
	require.Equal(t, catalog.ReasonServiceNotFound, fault.ReasonOf(err))
}

// TestANodeOfVeryManyGoesInSeveralCommits deregisters one, and lets another one die.
func TestANodeOfVeryManyGoesInSeveralCommits(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, 1, registrytest.Options{Adjust: func(cfg *registry.Config) { cfg.Registry.Catalog.ReapAfter = time.Second }})
	cl := c.Client(c.Servers[0])
	const requests, each = 11, catalog.DefaultMaxServices // 5,000 go at once
	last := uint64(0)
	for _, node := range []string{"gone", "dying"} {
		for i := range requests {
			req := fleet(node, fmt.Sprintf("%s-%d", node, i), each, 0)
			if node == "dying" {
				req.Node.LivenessTtl = durationpb.New(time.Minute)
				if i == requests-1 {
					req.Node.LivenessTtl = durationpb.New(time.Second)
				}
			}
			last = registerFleet(t, cl, req).GetMeta().GetIndex()
		}
	}
	req := &registryv1.DeregisterNodeRequest{Node: "gone", RequestId: "once"}
	resp, err := cl.Catalog.DeregisterNode(cl.Ctx(), req)
	require.NoError(t, err)
	require.Greater(t, resp.GetMeta().GetIndex(), last+1, "two commits at least")
	require.EqualValues(t, requests*each, resp.GetInstances())
	_, err = cl.Catalog.DeregisterNode(cl.Ctx(), req)
	require.NoError(t, err, "the same request again hears of its outcome")
	for _, node := range []string{"gone", "dying"} {
		registrytest.Eventually(t, func() error {
			_, err := cl.Catalog.GetNode(cl.Ctx(), &registryv1.GetNodeRequest{Node: node})
			if fault.ReasonOf(err) == catalog.ReasonNodeNotFound {
				return nil
			}
			return fmt.Errorf("%s is there still (%w)", node, err)
		})
	}
	services, err := cl.Catalog.ListServices(cl.Ctx(), &registryv1.ListServicesRequest{})
	require.NoError(t, err)
	require.Empty(t, services.GetServices())
}

func TestARegistrationOfTooManyIsRefusedWithTheSetting(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, 1, registrytest.Options{Adjust: func(cfg *registry.Config) { cfg.Registry.Catalog.MaxServicesPerRequest = 3 }})
	cl := c.Client(c.Servers[0])
	registerFleet(t, cl, fleet("n1", "api", 3, 0))
	_, err := cl.Catalog.RegisterNode(cl.Ctx(), fleet("n1", "api", 4, 0))
	f, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, "services", f.Field())
	require.Contains(t, f.Remedy(), "registry.catalog.max_services_per_request")
	twice := fleet("n1", "api", 2, 0)
	twice.Services[1].Service.Id = "api-0"
	_, err = cl.Catalog.RegisterNode(cl.Ctx(), twice)
	f, _ = fault.As(err)
	require.Equal(t, "services[1].service.id", f.Field())
}

func TestATTLCheckThatIsNotReportedBecomesCritical(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	cl := c.Client(c.Follower())
	const ttl = 2 * time.Second
	registerFleet(t, cl, fleet("n1", "api", 2, ttl))
	report := func(id string) error {
		_, err := cl.Catalog.UpdateChecks(cl.Ctx(), &registryv1.UpdateChecksRequest{Updates: []*registryv1.CheckUpdate{{ServiceId: id, CheckId: "c", Status: passing}}})
		return err
	}
	stop := during(t, func() error { return report("api-0") })
	defer stop()
	before := instance(t, cl, "api-0").GetChecks()[0].GetModifyIndex()
	silent := becomes(t, cl, "api-1", critical)
	require.Equal(t, "no report within 2s", silent.GetChecks()[0].GetOutput())
	require.Equal(t, passing, instance(t, cl, "api-0").GetStatus())
	require.Equal(t, before, instance(t, cl, "api-0").GetChecks()[0].GetModifyIndex(), "reports that change nothing cost no commit")

	// The next leader does not know of reports to the last one: it waits for the whole TTL, then
	// goes by what it hears.
	c.Leader().Kill()
	require.NoError(t, report("api-1"))
	require.Equal(t, passing, instance(t, cl, "api-0").GetStatus())
	require.Equal(t, passing, instance(t, cl, "api-1").GetStatus())
	becomes(t, cl, "api-1", critical)
	require.Equal(t, passing, instance(t, cl, "api-0").GetStatus())
}

func TestATTLRunsOutAfterALeaderChange(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	const ttl = 3 * time.Second
	registerFleet(t, c.Client(c.Leader()), fleet("n1", "api", 1, ttl))
	c.Leader().Kill()
	survivor := c.Client(c.Leader())
	elected := time.Now()
	require.Equal(t, passing, instance(t, survivor, "api-0").GetStatus())
	becomes(t, survivor, "api-0", critical)
	require.Greater(t, time.Since(elected), ttl/2, "a new leader gives every check its whole time")
}

func TestANodeWithoutHeartbeatsDiesComesBackAndIsReaped(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, 3, registrytest.Options{Adjust: func(cfg *registry.Config) { cfg.Registry.Catalog.ReapAfter = 4 * time.Second }})
	cl := c.Client(c.Follower())
	for _, node := range []string{"alive", "dying"} {
		req := fleet(node, node, 2, 0)
		req.Node.LivenessTtl = durationpb.New(2 * time.Second)
		registerFleet(t, cl, req)
	}
	beat := func(nodes ...string) (*registryv1.HeartbeatResponse, error) {
		return cl.Catalog.Heartbeat(cl.Ctx(), &registryv1.HeartbeatRequest{Nodes: nodes})
	}
	stop := during(t, func() error { _, err := beat("alive"); return err })
	defer stop()
	index := instance(t, cl, "alive-0").GetNodeChecks()[0].GetModifyIndex()
	dead := becomes(t, cl, "dying-1", critical)
	require.Equal(t, catalog.CheckLiveness, dead.GetNodeChecks()[0].GetId())
	require.Equal(t, "no heartbeat within 2s", dead.GetNodeChecks()[0].GetOutput())
	require.Empty(t, dead.GetChecks())
	nodes, err := cl.Catalog.ListNodes(cl.Ctx(), &registryv1.ListNodesRequest{Statuses: []registryv1.HealthStatus{critical}})
	require.NoError(t, err)
	require.Len(t, nodes.GetNodes(), 1)

	back, err := beat("dying", "nobody")
	require.NoError(t, err)
	require.Equal(t, []string{"nobody"}, back.GetUnknown())
	require.Equal(t, passing, instance(t, cl, "dying-1").GetStatus(), "one heartbeat brings it back")

	becomes(t, cl, "dying-1", critical)
	registrytest.Eventually(t, func() error {
		_, err := cl.Catalog.GetNode(cl.Ctx(), &registryv1.GetNodeRequest{Node: "dying"})
		if fault.ReasonOf(err) == catalog.ReasonNodeNotFound {
			return nil
		}
		return fmt.Errorf("still there: %w", err)
	})
	query, err := cl.Catalog.QueryService(cl.Ctx(), &registryv1.QueryServiceRequest{Service: "dying"})
	require.NoError(t, err)
	require.Empty(t, query.GetInstances())
	checks, err := cl.Catalog.ListChecks(cl.Ctx(), &registryv1.ListChecksRequest{Node: "dying"})
	require.NoError(t, err)
	require.Empty(t, checks.GetChecks())
	require.Equal(t, index, instance(t, cl, "alive-0").GetNodeChecks()[0].GetModifyIndex(), "heartbeats in time cost no commit")
	unknown, err := beat("dying")
	require.NoError(t, err)
	require.Equal(t, []string{"dying"}, unknown.GetUnknown())
}

func TestMaintenanceOfInstancesAndNodes(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	registerFleet(t, cl, fleet("n1", "api", 2, 0))
	maintain := func(req *registryv1.SetMaintenanceRequest) error {
		_, err := cl.Catalog.SetMaintenance(cl.Ctx(), req)
		return err
	}
	require.NoError(t, maintain(&registryv1.SetMaintenanceRequest{ServiceId: "api-0", Enabled: true, Reason: "new disk"}))
	down := instance(t, cl, "api-0")
	require.Equal(t, critical, down.GetStatus())
	require.Equal(t, "new disk", down.GetChecks()[0].GetOutput())
	require.Equal(t, passing, instance(t, cl, "api-1").GetStatus())
	registerFleet(t, cl, fleet("n1", "api", 2, 0))
	require.Equal(t, critical, instance(t, cl, "api-0").GetStatus(), "registering again does not end it")

	require.NoError(t, maintain(&registryv1.SetMaintenanceRequest{Node: "n1", Enabled: true}))
	require.Equal(t, critical, instance(t, cl, "api-1").GetStatus())
	listed, err := cl.Catalog.ListChecks(cl.Ctx(), &registryv1.ListChecksRequest{CheckId: catalog.CheckMaintenance})
	require.NoError(t, err)
	require.Len(t, listed.GetChecks(), 2)
	require.Equal(t, "n1", listed.GetChecks()[0].GetNode())
	require.Equal(t, "api", listed.GetChecks()[1].GetService())

	for range 2 {
		require.NoError(t, maintain(&registryv1.SetMaintenanceRequest{Node: "n1"}))
		require.NoError(t, maintain(&registryv1.SetMaintenanceRequest{ServiceId: "api-0"}))
	}
	require.Equal(t, passing, instance(t, cl, "api-0").GetStatus())
	require.Equal(t, catalog.ReasonNodeNotFound, fault.ReasonOf(maintain(&registryv1.SetMaintenanceRequest{Node: "n9", Enabled: true})))
	require.Equal(t, catalog.ReasonServiceNotFound, fault.ReasonOf(maintain(&registryv1.SetMaintenanceRequest{ServiceId: "x", Enabled: true})))
	require.Equal(t, fault.InvalidArgument, fault.CodeOf(maintain(&registryv1.SetMaintenanceRequest{Enabled: true})))
	_, err = cl.Catalog.UpdateChecks(cl.Ctx(), &registryv1.UpdateChecksRequest{Updates: []*registryv1.CheckUpdate{{Node: "n1", CheckId: catalog.CheckMaintenance, Status: passing}}})
	require.Equal(t, fault.InvalidArgument, fault.CodeOf(err), "the registry's own checks are not reported")
}

func TestSelectionsOverGRPC(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	for _, node := range []string{"a", "b"} {
		req := fleet(node, "api", 6, 0)
		for _, s := range req.GetServices() {
			s.Service.Id = node + "-" + s.GetService().GetId()
		}
		registerFleet(t, cl, req)
	}
	_, err := cl.Catalog.SetMaintenance(cl.Ctx(), &registryv1.SetMaintenanceRequest{ServiceId: "a-api-1", Enabled: true})
	require.NoError(t, err)
	for name, q := range map[string]struct {
		req  *registryv1.QueryServiceRequest
		want int
	}{
		"all":        {&registryv1.QueryServiceRequest{}, 12},
		"passing":    {&registryv1.QueryServiceRequest{PassingOnly: true}, 11},
		"tag":        {&registryv1.QueryServiceRequest{Tags: []string{"shard-1", "http"}}, 6},
		"meta":       {&registryv1.QueryServiceRequest{Meta: map[string]string{"version": "2"}}, 4},
		"node meta":  {&registryv1.QueryServiceRequest{NodeMeta: map[string]string{"rack": "a"}}, 6},
		"statuses":   {&registryv1.QueryServiceRequest{Statuses: []registryv1.HealthStatus{critical, warning}}, 1},
		"expression": {&registryv1.QueryServiceRequest{Filter: `Service.Meta.version != "0" and Node.Name == "b" and Service.Port != 8001`}, 3},
		"together":   {&registryv1.QueryServiceRequest{Filter: `Checks._x is empty`, PassingOnly: true, NodeMeta: map[string]string{"rack": "b"}}, 6},
	} {
		q.req.Service = "api"
		resp, err := cl.Catalog.QueryService(cl.Ctx(), q.req)
		if name == "together" {
			require.Equal(t, fault.InvalidArgument, fault.CodeOf(err), "a name cannot begin so outside of quotes")
			continue
		}
		require.NoError(t, err, name)
		require.Len(t, resp.GetInstances(), q.want, name)
	}
	services, err := cl.Catalog.ListServices(cl.Ctx(), &registryv1.ListServicesRequest{Tags: []string{"shard-0"}, Filter: `Node.Meta.rack == "a"`})
	require.NoError(t, err)
	require.EqualValues(t, 3, services.GetServices()[0].GetInstances())
	services, err = cl.Catalog.ListServices(cl.Ctx(), &registryv1.ListServicesRequest{Tags: []string{"none"}})
	require.NoError(t, err)
	require.Empty(t, services.GetServices())
	nodes, err := cl.Catalog.ListNodes(cl.Ctx(), &registryv1.ListNodesRequest{Filter: `Meta.rack matches "^[b-z]$"`})
	require.NoError(t, err)
	require.Len(t, nodes.GetNodes(), 1)
	_, err = cl.Catalog.ListNodes(cl.Ctx(), &registryv1.ListNodesRequest{Filter: `Service.Name == "x"`})
	f, _ := fault.As(err)
	require.Equal(t, "filter", f.Field())
	require.Contains(t, f.Message(), "1:1")
}

func TestABlockedHealthQueryWakesOnlyForItsService(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	registerFleet(t, cl, fleet("n1", "api", 2, 0))
	last := registerFleet(t, cl, fleet("n2", "web", 2, 0)).GetMeta().GetIndex()
	answered := make(chan *registryv1.QueryServiceResponse, 1)
	go func() {
		resp, err := cl.Catalog.QueryService(cl.Ctx(), &registryv1.QueryServiceRequest{Service: "api", Index: last, Wait: durationpb.New(10 * time.Second)})
		if err == nil {
			answered <- resp
		}
	}()
	for i := range 20 {
		req := fleet("n2", "web", 2, 0)
		req.Services[0].Service.Port = uint32(9000 + i)
		registerFleet(t, cl, req)
	}
	select {
	case resp := <-answered:
		t.Fatalf("woken by another service: %v", resp.GetMeta())
	case <-time.After(200 * time.Millisecond):
	}
	// The node's own state is part of the answer.
	_, err := cl.Catalog.SetMaintenance(cl.Ctx(), &registryv1.SetMaintenanceRequest{Node: "n1", Enabled: true})
	require.NoError(t, err)
	resp := <-answered
	require.Len(t, resp.GetInstances(), 2)
	require.Equal(t, critical, resp.GetInstances()[0].GetStatus())
}
