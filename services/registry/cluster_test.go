package registry_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry"
	"konsul.dev/services/registry/registrytest"
)

func set(t *testing.T, c *registrytest.Client, key, value string) *registryv1.SetResponse {
	t.Helper()
	resp, err := c.KV.Set(c.Ctx(), &registryv1.SetRequest{Key: key, Value: []byte(value)})
	require.NoError(t, err)
	return resp
}

func get(t *testing.T, c *registrytest.Client, key string, mode registryv1.ReadMode) string {
	t.Helper()
	resp, err := c.KV.Get(c.Ctx(), &registryv1.GetRequest{Key: key, ReadMode: mode})
	require.NoError(t, err)
	return string(resp.GetEntry().GetValue())
}

func TestEveryServerAnswersForTheCluster(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	for i, s := range c.Servers {
		key := fmt.Sprintf("k%d", i)
		written := set(t, c.Client(s), key, "v")
		require.Equal(t, "dc1", written.GetMeta().GetDatacenter())
		require.EqualValues(t, 1, written.GetEntry().GetVersion())
		for _, other := range c.Servers {
			for _, mode := range []registryv1.ReadMode{registryv1.ReadMode_READ_MODE_DEFAULT, registryv1.ReadMode_READ_MODE_LINEARIZABLE} {
				require.Equal(t, "v", get(t, c.Client(other), key, mode))
			}
			cl := c.Client(other)
			c.Eventually(func() error {
				_, err := cl.KV.Get(cl.Ctx(), &registryv1.GetRequest{Key: key, ReadMode: registryv1.ReadMode_READ_MODE_STALE})
				return err
			})
		}
	}
	follower := c.Client(c.Follower())
	page, err := follower.KV.List(follower.Ctx(), &registryv1.ListRequest{Prefix: "k"})
	require.NoError(t, err)
	require.Len(t, page.GetEntries(), 3)
	require.True(t, page.GetMeta().GetKnownLeader())

	status, err := follower.Operator.ClusterStatus(follower.Ctx(), &registryv1.ClusterStatusRequest{})
	require.NoError(t, err)
	require.True(t, status.GetHealthy())
	require.Len(t, status.GetServers(), 3)
	require.Equal(t, c.Leader().ID(), status.GetLeader())
}

func TestStatusSaysWhichServerIsDownAndWhyNothingCanBeWritten(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	leader, lost := c.Leader(), c.Follower()
	cl := c.Client(leader)
	problems := func() (*registryv1.ClusterStatusResponse, string) {
		status, err := cl.Operator.ClusterStatus(cl.Ctx(), &registryv1.ClusterStatusRequest{})
		require.NoError(t, err)
		var text []string
		for _, p := range status.GetProblems() {
			text = append(text, p.GetReason()+" "+p.GetServer())
		}
		return status, strings.Join(text, ", ")
	}
	status, wrong := problems()
	require.Empty(t, wrong)
	require.True(t, status.GetAvailable())
	require.True(t, status.GetHealthy())

	lost.Kill()
	status, wrong = problems()
	require.Equal(t, "SERVER_DOWN "+lost.ID(), wrong)
	require.True(t, status.GetAvailable(), "two of three serve")
	require.False(t, status.GetHealthy())

	for _, s := range c.Servers {
		if s != leader && s != lost {
			s.Kill()
		}
	}
	status, wrong = problems()
	require.Contains(t, wrong, "MAJORITY_LOST")
	require.False(t, status.GetAvailable())

	c.Eventually(func() error {
		_, err := cl.KV.Set(cl.Ctx(), &registryv1.SetRequest{Key: "k", Value: []byte("v")})
		if fault.ReasonOf(err) != fault.ReasonNoLeader {
			return fmt.Errorf("still %w", err) // what was proposed before the leader stepped down has an outcome that is not known
		}
		f, _ := fault.As(err)
		require.Equal(t, fault.Unavailable, f.Code())
		require.Contains(t, f.Message(), "datacenter dc1 has had no leader")
		require.Contains(t, f.Remedy(), "konsulctl cluster status")
		return nil
	})
}

func TestAcknowledgedWritesSurviveTheLeadersDeathAndAFullRestart(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	leader := c.Leader()
	before := set(t, c.Client(leader), "a", "1")
	survivor := c.Follower()
	leader.Kill()
	start := time.Now()
	after := set(t, c.Client(survivor), "b", "2")
	t.Logf("leader killed to next acknowledged write: %v", time.Since(start))
	require.Greater(t, after.GetMeta().GetIndex(), before.GetMeta().GetIndex())
	require.Equal(t, "1", get(t, c.Client(survivor), "a", registryv1.ReadMode_READ_MODE_LINEARIZABLE))

	for _, s := range c.Servers {
		s.Kill()
	}
	for _, s := range c.Servers {
		s.Start()
	}
	c.WaitReady()
	for _, s := range c.Servers {
		require.Equal(t, "1", get(t, c.Client(s), "a", registryv1.ReadMode_READ_MODE_DEFAULT))
		require.Equal(t, "2", get(t, c.Client(s), "b", registryv1.ReadMode_READ_MODE_DEFAULT))
	}
	again := set(t, c.Client(c.Servers[0]), "c", "3")
	require.Greater(t, again.GetMeta().GetIndex(), after.GetMeta().GetIndex(), "an index never decreases")
}

func TestOneServerRestartsFromItsDisk(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, 1, registrytest.Options{Adjust: func(cfg *registry.Config) {
		cfg.Registry.Raft.SnapshotThreshold, cfg.Registry.Raft.TrailingLogs = 20, 5
	}})
	s := c.Servers[0]
	var last uint64
	for round := range 3 {
		for i := range 30 {
			last = set(t, c.Client(s), fmt.Sprintf("r%d/k%d", round, i), "v").GetMeta().GetIndex()
		}
		require.NoError(t, s.Snapshot())
		set(t, c.Client(s), "last", fmt.Sprint(round))
		if round%2 == 0 {
			s.Kill()
		} else {
			s.Stop()
		}
		s.Start()
		c.WaitReady()
		require.Equal(t, fmt.Sprint(round), get(t, c.Client(s), "last", registryv1.ReadMode_READ_MODE_LINEARIZABLE))
		cl := c.Client(s)
		page, err := cl.KV.List(cl.Ctx(), &registryv1.ListRequest{Prefix: "r"})
		require.NoError(t, err)
		require.Len(t, page.GetEntries(), 30*(round+1))
		require.GreaterOrEqual(t, page.GetMeta().GetIndex(), last)
	}
}

func TestKeyValueStory(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	cl := c.Client(c.Follower())

	set(t, cl, "global/config/app", "global")
	require.Equal(t, "global", get(t, cl, "config/app", 0))
	set(t, cl, "config/app", "own")
	require.Equal(t, "own", get(t, cl, "config/app", 0))

	zero := uint64(0)
	_, err := cl.KV.Set(cl.Ctx(), &registryv1.SetRequest{Key: "config/app", Cas: &zero})
	require.Equal(t, fault.Aborted, fault.CodeOf(err))
	require.Equal(t, "CAS_MISMATCH", fault.ReasonOf(err))

	request := &registryv1.SetRequest{Key: "counter", Value: []byte("1"), RequestId: uuid.NewString()}
	first, err := cl.KV.Set(cl.Ctx(), request)
	require.NoError(t, err)
	set(t, cl, "counter", "2")
	again, err := cl.KV.Set(cl.Ctx(), request)
	require.NoError(t, err)
	require.Equal(t, first.GetMeta().GetIndex(), again.GetMeta().GetIndex(), "the first outcome is answered again")
	require.Equal(t, "2", get(t, cl, "counter", 0))

	deleted, err := cl.KV.Delete(cl.Ctx(), &registryv1.DeleteRequest{Key: "config/", Recurse: true})
	require.NoError(t, err)
	require.EqualValues(t, 1, deleted.GetDeleted())
	require.Equal(t, "global", get(t, cl, "config/app", 0))

	_, err = cl.KV.Get(cl.Ctx(), &registryv1.GetRequest{Key: "absent"})
	require.Equal(t, fault.NotFound, fault.CodeOf(err))
	_, err = cl.KV.Get(cl.Ctx(), &registryv1.GetRequest{Key: "x", Datacenter: "atlantis"})
	require.Equal(t, "UNKNOWN_DATACENTER", fault.ReasonOf(err))
	_, err = cl.KV.Set(cl.Ctx(), &registryv1.SetRequest{Key: "big", Value: make([]byte, 512<<10+1)})
	require.Equal(t, "VALUE_TOO_LARGE", fault.ReasonOf(err))
	_, err = cl.KV.Set(cl.Ctx(), &registryv1.SetRequest{Key: "big", Value: make([]byte, 512<<10)})
	require.NoError(t, err)
}

func TestBlockedReadsWakeOnChange(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	writer := c.Client(c.Leader())
	reader := c.Client(c.Follower())
	set(t, writer, "other", "x")
	_, err := reader.KV.Get(reader.Ctx(), &registryv1.GetRequest{Key: "awaited"})
	f, ok := fault.As(err)
	require.True(t, ok)
	var index uint64
	_, err = fmt.Sscan(f.Meta()["index"], &index)
	require.NoError(t, err, "an absent key says from where to wait")

	got := make(chan string, 3)
	go func() {
		resp, err := reader.KV.Get(reader.Ctx(), &registryv1.GetRequest{Key: "awaited", Index: index, Wait: durationpb.New(10 * time.Second)})
		got <- fmt.Sprint(string(resp.GetEntry().GetValue()), err)
	}()
	go func() {
		resp, err := reader.KV.List(reader.Ctx(), &registryv1.ListRequest{Prefix: "awa", Index: index, Wait: durationpb.New(10 * time.Second)})
		got <- fmt.Sprintf("%d%v", len(resp.GetEntries()), err)
	}()
	go func() {
		resp, err := reader.Catalog.QueryService(reader.Ctx(), &registryv1.QueryServiceRequest{Service: "api", Index: index, Wait: durationpb.New(10 * time.Second)})
		got <- fmt.Sprint(resp.GetInstances()[0].GetService().GetId(), err)
	}()
	set(t, writer, "unrelated", "x")
	set(t, writer, "awaited", "v")
	register(t, writer, "n1", "api-1", "api")
	require.ElementsMatch(t, []string{"v<nil>", "1<nil>", "api-1<nil>"}, []string{<-got, <-got, <-got})

	start := time.Now()
	resp, err := reader.KV.Get(reader.Ctx(), &registryv1.GetRequest{Key: "other", Index: index, Wait: durationpb.New(150 * time.Millisecond)})
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(start), 150*time.Millisecond)
	require.GreaterOrEqual(t, resp.GetMeta().GetIndex(), index)
}

func register(t *testing.T, c *registrytest.Client, node, id, name string) {
	t.Helper()
	_, err := c.Catalog.Register(c.Ctx(), &registryv1.RegisterRequest{
		Node:    &registryv1.Node{Name: node, Address: "127.0.0.1"},
		Service: &registryv1.Service{Id: id, Name: name, Port: 80},
		Checks:  []*registryv1.Check{{Id: "http", Status: registryv1.HealthStatus_HEALTH_STATUS_PASSING}},
	})
	require.NoError(t, err)
}

func TestCatalogueStory(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	register(t, cl, "n1", "api-1", "api")
	register(t, cl, "n2", "api-2", "api")
	agent := c.ClientAs(c.Servers[0], c.DC, "agent")
	_, err := agent.Catalog.UpdateChecks(agent.Bare(), &registryv1.UpdateChecksRequest{Updates: []*registryv1.CheckUpdate{
		{ServiceId: "api-2", CheckId: "http", Status: registryv1.HealthStatus_HEALTH_STATUS_CRITICAL, Output: "refused"},
	}})
	require.NoError(t, err)
	resp, err := cl.Catalog.QueryService(cl.Ctx(), &registryv1.QueryServiceRequest{Service: "api"})
	require.NoError(t, err)
	require.Len(t, resp.GetInstances(), 2)
	require.Equal(t, "dc1", resp.GetInstances()[0].GetDatacenter())
	require.Equal(t, "refused", resp.GetInstances()[1].GetChecks()[0].GetOutput())
	resp, err = cl.Catalog.QueryService(cl.Ctx(), &registryv1.QueryServiceRequest{Service: "api", PassingOnly: true})
	require.NoError(t, err)
	require.Len(t, resp.GetInstances(), 1)
	_, err = cl.Catalog.Deregister(cl.Ctx(), &registryv1.DeregisterRequest{ServiceId: "api-1"})
	require.NoError(t, err)
	_, err = cl.Catalog.Deregister(cl.Ctx(), &registryv1.DeregisterRequest{ServiceId: "api-1"})
	require.Equal(t, fault.NotFound, fault.CodeOf(err))
	services, err := cl.Catalog.ListServices(cl.Ctx(), &registryv1.ListServicesRequest{})
	require.NoError(t, err)
	require.EqualValues(t, 1, services.GetServices()[0].GetInstances())
	nodes, err := cl.Catalog.ListNodes(cl.Ctx(), &registryv1.ListNodesRequest{})
	require.NoError(t, err)
	require.Len(t, nodes.GetNodes(), 2)
	_, err = cl.Catalog.SetFailoverPolicy(cl.Ctx(), &registryv1.SetFailoverPolicyRequest{Policy: &registryv1.FailoverPolicy{
		Service: "api", Failover: []*registryv1.FailoverTarget{{Datacenter: "us-west"}},
	}})
	require.NoError(t, err)
	policy, err := cl.Catalog.GetFailoverPolicy(cl.Ctx(), &registryv1.GetFailoverPolicyRequest{Service: "api"})
	require.NoError(t, err)
	require.Len(t, policy.GetPolicy().GetFailover(), 1)
}

func TestWatchSendsStateThenChangesThenHeartbeats(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	writer := c.Client(c.Leader())
	set(t, writer, "a/1", "1")
	set(t, writer, "b/1", "1")
	watcher := c.Client(c.Follower())
	stream, err := watcher.Watch.Watch(watcher.Ctx(), &registryv1.WatchRequest{
		Table: registryv1.Table_TABLE_KV, Prefix: "local/a/", Heartbeat: durationpb.New(200 * time.Millisecond),
	})
	require.NoError(t, err)
	seen := map[string]bool{}
	var last uint64
	receive := func() *registryv1.WatchResponse {
		m, err := stream.Recv()
		require.NoError(t, err)
		require.False(t, m.GetResync())
		require.GreaterOrEqual(t, m.GetIndex(), last)
		require.NotNil(t, m.GetTime())
		last = m.GetIndex()
		for _, r := range m.GetRecords() {
			require.Contains(t, r.GetKey(), "local/a/")
			seen[r.GetKey()] = !r.GetDeleted()
		}
		return m
	}
	require.True(t, receive().GetSynced())
	for !seen["local/a/1"] {
		receive()
	}
	set(t, writer, "a/2", "1")
	_, err = writer.KV.Delete(writer.Ctx(), &registryv1.DeleteRequest{Key: "a/1"})
	require.NoError(t, err)
	for !seen["local/a/2"] || seen["local/a/1"] {
		receive()
	}
	for receive(); len(receive().GetRecords()) > 0; {
	}

	resumed, err := watcher.Watch.Watch(watcher.Ctx(), &registryv1.WatchRequest{Table: registryv1.Table_TABLE_KV, Prefix: "local/a/", Index: 1})
	require.NoError(t, err)
	m, err := resumed.Recv()
	require.NoError(t, err)
	require.Len(t, m.GetRecords(), 2, "the tombstone too")

	refused, err := watcher.Watch.Watch(watcher.Ctx(), &registryv1.WatchRequest{Table: registryv1.Table_TABLE_JOIN_TOKEN})
	require.NoError(t, err)
	_, err = refused.Recv()
	require.Equal(t, fault.InvalidArgument, fault.CodeOf(err))
	for _, service := range []string{"agent", "failover-router", "gateway", "replicator", "wan-gossip"} {
		own := c.ClientAs(c.Follower(), c.DC, service)
		stream, err := own.Watch.Watch(own.Bare(), &registryv1.WatchRequest{Table: registryv1.Table_TABLE_KV, Prefix: "local/a/"})
		require.NoError(t, err)
		_, err = stream.Recv()
		require.Contains(t, []fault.Code{fault.PermissionDenied, fault.Unauthenticated}, fault.CodeOf(err), "%s has no keys of its own", service)
	}
}

func TestNobodyIsLetInWithoutIdentityOrToken(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	s := c.Servers[0]
	gateway := c.Client(s)
	_, err := gateway.KV.Get(gateway.Bare(), &registryv1.GetRequest{Key: "x"})
	require.Equal(t, fault.Unauthenticated, fault.CodeOf(err))
	_, err = gateway.KV.Get(rpc.WithToken(gateway.Bare(), "wrong-token-wrong-token"), &registryv1.GetRequest{Key: "x"})
	require.Equal(t, "TOKEN_UNKNOWN", fault.ReasonOf(err))
	agent := c.ClientAs(s, c.DC, "agent")
	_, err = agent.KV.Get(agent.Ctx(), &registryv1.GetRequest{Key: "x"})
	require.Equal(t, fault.PermissionDenied, fault.CodeOf(err))
	foreign := c.ClientAs(s, "dc2", "gateway")
	_, err = foreign.KV.Get(foreign.Ctx(), &registryv1.GetRequest{Key: "x"})
	require.Equal(t, fault.PermissionDenied, fault.CodeOf(err))
	_, err = agent.Trust.GetJoinToken(agent.Bare(), &registryv1.GetJoinTokenRequest{Id: "x"})
	require.Equal(t, fault.PermissionDenied, fault.CodeOf(err))
}

func TestTheFederationIsFoundedOnce(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	var ids []string
	for _, s := range c.Servers {
		cl := c.Client(s)
		resp, err := cl.Federation.GetFederation(cl.Bare(), &federationv1.GetFederationRequest{})
		require.NoError(t, err)
		f := resp.GetFederation()
		require.EqualValues(t, 1, f.GetEpoch())
		require.Equal(t, "dc1", f.GetPrimaryDatacenter())
		require.Equal(t, "dc1", f.GetDatacenter())
		require.Len(t, f.GetMembers(), 1)
		ids = append(ids, f.GetMembers()[0].GetId())
	}
	require.Equal(t, ids[0], ids[1])
	require.Equal(t, ids[0], ids[2])
}
