package contracttest

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
)

const (
	passing  = registryv1.HealthStatus_HEALTH_STATUS_PASSING
	critical = registryv1.HealthStatus_HEALTH_STATUS_CRITICAL
)

// Catalog is what an agent relies on. connect returns a connection to an empty registry, over which
// an agent calls.
func Catalog(t *testing.T, connect func(t *testing.T) grpc.ClientConnInterface) {
	for name, claim := range map[string]func(catalog, *testing.T){
		"what is not there is not found, and nothing to read is no error": catalog.nothing,
		"a registration of a node keeps what it does not name":            catalog.nodes,
		"heartbeats are expected of nodes with a time to live":            catalog.heartbeats,
		"a registration replaces an instance and its checks":              catalog.instances,
		"a check keeps its output as long as its status stays":            catalog.checks,
		"a watch sends every service and says when that was all":          catalog.watches,
		"a deregistered node takes its instances along":                   catalog.removal,
		"a failover policy is read as it was set":                         catalog.policies,
	} {
		t.Run(name, func(t *testing.T) {
			conn := connect(t)
			claim(catalog{registryv1.NewCatalogServiceClient(conn), registryv1.NewWatchServiceClient(conn)}, t)
		})
	}
}

// catalog is a registry as an agent calls it.
type catalog struct {
	registryv1.CatalogServiceClient

	watch registryv1.WatchServiceClient
}

func node(name string) *registryv1.Node { return &registryv1.Node{Name: name, Address: "10.0.0.1"} }

func service(id, on string, port uint32) *registryv1.Service {
	return &registryv1.Service{Id: id, Name: "api", Node: on, Port: port}
}

func (c catalog) register(t *testing.T, n *registryv1.Node, s *registryv1.Service, checks ...*registryv1.Check) {
	t.Helper()
	_, err := c.Register(deadline(t), &registryv1.RegisterRequest{Node: n, Service: s, Checks: checks})
	require.NoError(t, err)
}

// find returns an instance of the service api; nil: there is none.
func (c catalog) find(t *testing.T, id string) *registryv1.ServiceInstance {
	t.Helper()
	resp, err := c.QueryService(deadline(t), &registryv1.QueryServiceRequest{Service: "api"})
	require.NoError(t, err)
	for _, i := range resp.GetInstances() {
		if i.GetService().GetId() == id {
			return i
		}
	}
	return nil
}

// listed returns a node as the list has it; nil: it is not there.
func (c catalog) listed(t *testing.T, name string) *registryv1.Node {
	t.Helper()
	resp, err := c.ListNodes(deadline(t), &registryv1.ListNodesRequest{})
	require.NoError(t, err)
	for _, n := range resp.GetNodes() {
		if n.GetName() == name {
			return n
		}
	}
	return nil
}

func (c catalog) nothing(t *testing.T) {
	ctx := deadline(t)
	_, err := c.Deregister(ctx, &registryv1.DeregisterRequest{ServiceId: "ghost"})
	refused(t, fault.NotFound, "SERVICE_NOT_FOUND", err)
	_, err = c.DeregisterNode(ctx, &registryv1.DeregisterNodeRequest{Node: "ghost"})
	refused(t, fault.NotFound, "NODE_NOT_FOUND", err)
	_, err = c.GetNode(ctx, &registryv1.GetNodeRequest{Node: "ghost"})
	refused(t, fault.NotFound, "NODE_NOT_FOUND", err)
	_, err = c.UpdateChecks(ctx, &registryv1.UpdateChecksRequest{Updates: []*registryv1.CheckUpdate{
		{ServiceId: "ghost", CheckId: "http", Status: passing},
	}})
	refused(t, fault.NotFound, "CHECK_NOT_FOUND", err)
	_, err = c.GetFailoverPolicy(ctx, &registryv1.GetFailoverPolicyRequest{Service: "api"})
	refused(t, fault.NotFound, "FAILOVER_POLICY_NOT_FOUND", err)
	require.Nil(t, c.find(t, "ghost"))
	require.Nil(t, c.listed(t, "ghost"))
}

func (c catalog) nodes(t *testing.T) {
	full := node("n1")
	full.Meta, full.LivenessTtl = map[string]string{"rack": "7"}, durationpb.New(time.Minute)
	c.register(t, full, nil)
	again := node("n1")
	again.Address = "10.0.0.2"
	c.register(t, again, nil)
	kept := c.listed(t, "n1")
	require.Equal(t, "10.0.0.2", kept.GetAddress())
	require.Equal(t, map[string]string{"rack": "7"}, kept.GetMeta())
	require.Equal(t, time.Minute, kept.GetLivenessTtl().AsDuration())

	again.LivenessTtl = durationpb.New(0)
	c.register(t, again, nil)
	require.Nil(t, c.listed(t, "n1").GetLivenessTtl(), "zero ends the expectation")
	read, err := c.GetNode(deadline(t), &registryv1.GetNodeRequest{Node: "n1"})
	require.NoError(t, err)
	require.Equal(t, "n1", read.GetNode().GetName())
	require.Empty(t, read.GetInstances())
}

func (c catalog) heartbeats(t *testing.T) {
	watched := node("watched")
	watched.LivenessTtl = durationpb.New(time.Minute)
	c.register(t, watched, nil)
	c.register(t, node("free"), nil)
	unknown := func(names ...string) []string {
		resp, err := c.Heartbeat(deadline(t), &registryv1.HeartbeatRequest{Nodes: names})
		require.NoError(t, err)
		slices.Sort(resp.GetUnknown())
		return resp.GetUnknown()
	}
	require.Empty(t, unknown("watched"))
	require.Equal(t, []string{"free", "ghost"}, unknown("watched", "free", "ghost"))
}

func (c catalog) instances(t *testing.T) {
	c.register(t, node("n1"), service("api-1", "n1", 80), &registryv1.Check{Id: "http", Status: critical, Output: "refused"})
	first := c.find(t, "api-1")
	require.Equal(t, "n1", first.GetNode().GetName())
	require.Equal(t, "n1", first.GetService().GetNode())
	require.EqualValues(t, 80, first.GetService().GetPort())
	require.Len(t, first.GetChecks(), 1)
	require.Equal(t, critical, first.GetChecks()[0].GetStatus(), "those that are not well are shown, too")
	require.Equal(t, "refused", first.GetChecks()[0].GetOutput())

	c.register(t, node("n1"), service("api-1", "n1", 81))
	second := c.find(t, "api-1")
	require.EqualValues(t, 81, second.GetService().GetPort())
	require.Empty(t, second.GetChecks(), "a registration names all checks")
	require.Greater(t, second.GetService().GetModifyIndex(), first.GetService().GetModifyIndex())

	read, err := c.GetNode(deadline(t), &registryv1.GetNodeRequest{Node: "n1"})
	require.NoError(t, err)
	require.Len(t, read.GetInstances(), 1)
	require.Equal(t, "api-1", read.GetInstances()[0].GetService().GetId())

	_, err = c.Deregister(deadline(t), &registryv1.DeregisterRequest{ServiceId: "api-1"})
	require.NoError(t, err)
	require.Nil(t, c.find(t, "api-1"))
	require.NotNil(t, c.listed(t, "n1"), "its node stays")
	_, err = c.Deregister(deadline(t), &registryv1.DeregisterRequest{ServiceId: "api-1"})
	refused(t, fault.NotFound, "SERVICE_NOT_FOUND", err)
}

func (c catalog) checks(t *testing.T) {
	c.register(t, node("n1"), service("api-1", "n1", 80), &registryv1.Check{Id: "http", Status: critical, Output: "refused"})
	update := func(check string, status registryv1.HealthStatus, output string) error {
		_, err := c.UpdateChecks(deadline(t), &registryv1.UpdateChecksRequest{Updates: []*registryv1.CheckUpdate{
			{ServiceId: "api-1", CheckId: check, Status: status, Output: output},
		}})
		return err
	}
	check := func() *registryv1.Check { return c.find(t, "api-1").GetChecks()[0] }
	require.NoError(t, update("http", critical, "reset"))
	require.Equal(t, "refused", check().GetOutput())
	require.NoError(t, update("http", passing, "200 OK"))
	require.Equal(t, passing, check().GetStatus())
	require.Equal(t, "200 OK", check().GetOutput())
	refused(t, fault.NotFound, "CHECK_NOT_FOUND", update("disk", passing, ""))
}

func (c catalog) watches(t *testing.T) {
	c.register(t, node("n1"), service("api-1", "n1", 80))
	c.register(t, node("n1"), service("api-2", "n1", 81))
	stream, err := c.watch.Watch(deadline(t), &registryv1.WatchRequest{
		Table: registryv1.Table_TABLE_SERVICE, Heartbeat: durationpb.New(time.Second),
	})
	require.NoError(t, err)
	var ids []string
	for synced := false; !synced; {
		m, err := stream.Recv()
		require.NoError(t, err)
		require.False(t, m.GetResync())
		for _, r := range m.GetRecords() {
			require.Equal(t, registryv1.Table_TABLE_SERVICE, r.GetTable())
			if r.GetDeleted() {
				require.Empty(t, r.GetValue())
				continue
			}
			s := &registryv1.Service{}
			require.NoError(t, proto.Unmarshal(r.GetValue(), s))
			require.Equal(t, "n1", s.GetNode())
			ids = append(ids, s.GetId())
		}
		synced = m.GetSynced()
	}
	slices.Sort(ids)
	require.Equal(t, []string{"api-1", "api-2"}, ids)
}

func (c catalog) removal(t *testing.T) {
	watched := node("n1")
	watched.LivenessTtl = durationpb.New(time.Minute)
	c.register(t, watched, service("api-1", "n1", 80))
	c.register(t, node("n2"), service("api-2", "n2", 80))
	_, err := c.DeregisterNode(deadline(t), &registryv1.DeregisterNodeRequest{Node: "n1"})
	require.NoError(t, err)
	require.Nil(t, c.find(t, "api-1"))
	require.NotNil(t, c.find(t, "api-2"))
	require.Nil(t, c.listed(t, "n1"))
	resp, err := c.Heartbeat(deadline(t), &registryv1.HeartbeatRequest{Nodes: []string{"n1"}})
	require.NoError(t, err)
	require.Equal(t, []string{"n1"}, resp.GetUnknown())
}

func (c catalog) policies(t *testing.T) {
	read := func() *registryv1.FailoverPolicy {
		resp, err := c.GetFailoverPolicy(deadline(t), &registryv1.GetFailoverPolicyRequest{Service: "api"})
		require.NoError(t, err)
		return resp.GetPolicy()
	}
	set := func(datacenters ...string) {
		_, err := c.SetFailoverPolicy(deadline(t), &registryv1.SetFailoverPolicyRequest{Policy: policy(datacenters...)})
		require.NoError(t, err)
	}
	set("us-west", "eu-central")
	first := read()
	require.Equal(t, []string{"us-west", "eu-central"}, targets(first))
	set("eu-central")
	require.Equal(t, []string{"eu-central"}, targets(read()))
	require.Greater(t, read().GetModifyIndex(), first.GetModifyIndex())
}

// policy is that the service api fails over to datacenters, in this order.
func policy(datacenters ...string) *registryv1.FailoverPolicy {
	p := &registryv1.FailoverPolicy{Service: "api"}
	for _, dc := range datacenters {
		p.Failover = append(p.Failover, &registryv1.FailoverTarget{Datacenter: dc})
	}
	return p
}

func targets(p *registryv1.FailoverPolicy) (datacenters []string) {
	for _, target := range p.GetFailover() {
		datacenters = append(datacenters, target.GetDatacenter())
	}
	return datacenters
}
