package registry_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry"
	"konsul.dev/services/registry/registrytest"
)

const heartbeat = 100 * time.Millisecond

// follow receives until done says that a message was the last.
func follow[T any](t *testing.T, stream interface{ Recv() (T, error) }, done func(T) bool) T {
	t.Helper()
	for {
		m, err := stream.Recv()
		require.NoError(t, err)
		if done(m) {
			return m
		}
	}
}

func TestWatchOfOneKeySeesBothScopesAndNothingElse(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	set(t, cl, "a", "before")
	set(t, cl, "ab", "x")
	stream, err := cl.Watch.Watch(cl.Ctx(), &registryv1.WatchRequest{Table: registryv1.Table_TABLE_KV, Key: "a", Heartbeat: durationpb.New(heartbeat)})
	require.NoError(t, err)
	m, err := stream.Recv()
	require.NoError(t, err)
	require.Len(t, m.GetRecords(), 1)
	require.Equal(t, "local/a", m.GetRecords()[0].GetKey())
	set(t, cl, "ab", "y")
	set(t, cl, "global/a", "g")
	m = follow(t, stream, func(m *registryv1.WatchResponse) bool { return len(m.GetRecords()) > 0 })
	require.Len(t, m.GetRecords(), 1)
	require.Equal(t, "global/a", m.GetRecords()[0].GetKey())
	require.Equal(t, "g", string(m.GetRecords()[0].GetValue()))
	resumed := m.GetIndex()

	_, err = cl.KV.Delete(cl.Ctx(), &registryv1.DeleteRequest{Key: "local/a"})
	require.NoError(t, err)
	again, err := cl.Watch.Watch(cl.Ctx(), &registryv1.WatchRequest{Table: registryv1.Table_TABLE_KV, Key: "a", Index: resumed})
	require.NoError(t, err)
	m, err = again.Recv()
	require.NoError(t, err)
	require.Len(t, m.GetRecords(), 1)
	require.True(t, m.GetRecords()[0].GetDeleted())
	require.True(t, m.GetSynced())

	below, err := cl.Watch.Watch(cl.Ctx(), &registryv1.WatchRequest{Table: registryv1.Table_TABLE_KV, KeyPrefix: "a"})
	require.NoError(t, err)
	m, err = below.Recv()
	require.NoError(t, err)
	require.Len(t, m.GetRecords(), 2, "local/ab and global/a")

	for field, req := range map[string]*registryv1.WatchRequest{
		"key":        {Table: registryv1.Table_TABLE_KV, Key: "a", Prefix: "b"},
		"key_prefix": {Table: registryv1.Table_TABLE_NODE, KeyPrefix: "a"},
		"table":      {Key: "a"},
	} {
		refused, err := cl.Watch.Watch(cl.Ctx(), req)
		require.NoError(t, err)
		_, err = refused.Recv()
		f, ok := fault.As(err)
		require.True(t, ok, "%v", err)
		require.Equal(t, field, f.Field())
	}
}

func TestASlowWatcherGetsTheLastValue(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	stream, err := cl.Watch.Watch(cl.Ctx(), &registryv1.WatchRequest{Table: registryv1.Table_TABLE_KV, Key: "local/hot"})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.NoError(t, err)
	// More than the stream's window holds, so that the server's watcher stands still.
	value := make([]byte, 64<<10)
	const writes = 60
	for i := range writes {
		copy(value, fmt.Sprintf("%04d", i))
		set(t, cl, "hot", string(value))
	}
	seen := 0
	follow(t, stream, func(m *registryv1.WatchResponse) bool {
		require.False(t, m.GetResync())
		for _, r := range m.GetRecords() {
			seen++
			if string(r.GetValue()[:4]) == fmt.Sprintf("%04d", writes-1) {
				return true
			}
		}
		return false
	})
	require.Less(t, seen, writes, "versions that were overwritten while it stood still are left out")
}

func TestWatchInstancesSendsWholeAnswersAndOnlyNews(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	writer := c.Client(c.Leader())
	cl := c.Client(c.Follower())
	watch := func(index uint64, passing bool) registryv1.WatchService_WatchInstancesClient {
		stream, err := cl.Watch.WatchInstances(cl.Ctx(), &registryv1.WatchInstancesRequest{Service: "web", Index: index, PassingOnly: passing, Heartbeat: durationpb.New(heartbeat)})
		require.NoError(t, err)
		return stream
	}
	changed := func(m *registryv1.WatchInstancesResponse) bool { return m.GetChanged() }
	stream := watch(0, false)
	m, err := stream.Recv()
	require.NoError(t, err)
	require.True(t, m.GetChanged())
	require.Empty(t, m.GetInstances())

	register(t, writer, "n1", "web-1", "web")
	m = follow(t, stream, changed)
	require.Len(t, m.GetInstances(), 1)
	register(t, writer, "n2", "web-2", "web")
	m = follow(t, stream, func(m *registryv1.WatchInstancesResponse) bool { return len(m.GetInstances()) == 2 })
	quiet := m.GetIndex()
	register(t, writer, "n1", "db-1", "db")
	m = follow(t, stream, func(m *registryv1.WatchInstancesResponse) bool { return m.GetIndex() > quiet && !m.GetChanged() })
	require.Empty(t, m.GetInstances(), "a heartbeat repeats nothing")

	resumed := watch(m.GetIndex(), true)
	m, err = resumed.Recv()
	require.NoError(t, err)
	require.False(t, m.GetChanged(), "nothing happened since")
	_, err = writer.Catalog.Deregister(writer.Ctx(), &registryv1.DeregisterRequest{ServiceId: "web-1"})
	require.NoError(t, err)
	m = follow(t, resumed, changed)
	require.Len(t, m.GetInstances(), 1)
	require.Equal(t, "web-2", m.GetInstances()[0].GetService().GetId())
	require.Equal(t, "n2", m.GetInstances()[0].GetNode().GetName())

	refused, err := cl.Watch.WatchInstances(cl.Ctx(), &registryv1.WatchInstancesRequest{Service: "no such name"})
	require.NoError(t, err)
	_, err = refused.Recv()
	require.Equal(t, fault.InvalidArgument, fault.CodeOf(err), "%v", err)
}

// A watcher that comes with an index of what the datacenter was before it was rebuilt heard nothing
// but heartbeats until the new registry's index had passed it.
func TestWatchInstancesFromAnIndexThatIsNoneOfTheDatacentersBeginsAnew(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Leader())
	register(t, cl, "n1", "web-1", "web")
	stream, err := cl.Watch.WatchInstances(cl.Ctx(), &registryv1.WatchInstancesRequest{Service: "web", Index: 1 << 40, Heartbeat: durationpb.New(heartbeat)})
	require.NoError(t, err)
	m := follow(t, stream, func(m *registryv1.WatchInstancesResponse) bool { return m.GetChanged() })
	require.Len(t, m.GetInstances(), 1)
	require.Less(t, m.GetIndex(), uint64(1<<40))
}

func TestWatchInstancesEndsWhenThePermissionGoes(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	admin := c.Client(c.Servers[0])
	made := limited(t, admin, "reader", "service web read")
	refused, err := admin.Watch.WatchInstances(admin.As(made.GetSecret()), &registryv1.WatchInstancesRequest{Service: "db"})
	require.NoError(t, err)
	_, err = refused.Recv()
	require.Equal(t, fault.PermissionDenied, fault.CodeOf(err), "%v", err)

	stream, err := admin.Watch.WatchInstances(admin.As(made.GetSecret()), &registryv1.WatchInstancesRequest{Service: "web", Heartbeat: durationpb.New(heartbeat)})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.NoError(t, err)
	_, err = admin.ACL.UpdatePolicy(admin.Ctx(), &registryv1.UpdatePolicyRequest{Policy: &registryv1.ACLPolicy{Name: "reader", Rules: []*registryv1.ACLRule{aclRule("service db read")}}})
	require.NoError(t, err)
	for err == nil {
		_, err = stream.Recv()
	}
	require.Equal(t, fault.PermissionDenied, fault.CodeOf(err), "%v", err)
}

// A watcher goes on over a change of the leader, and one whose server's state is replaced by a
// snapshot is told to start again.
func TestWatchersOverALeaderChangeAndASnapshot(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, 3, registrytest.Options{Adjust: func(cfg *registry.Config) {
		cfg.Registry.Raft.SnapshotThreshold, cfg.Registry.Raft.TrailingLogs = 10, 1
	}})
	leader, survivor := c.Leader(), c.Follower()
	cl := c.Client(survivor)
	stream, err := cl.Watch.Watch(cl.Ctx(), &registryv1.WatchRequest{Table: registryv1.Table_TABLE_KV, KeyPrefix: "k", Heartbeat: durationpb.New(heartbeat)})
	require.NoError(t, err)
	state, index := map[string]string{}, uint64(0)
	until := func(key string) {
		follow(t, stream, func(m *registryv1.WatchResponse) bool {
			require.False(t, m.GetResync())
			require.GreaterOrEqual(t, m.GetIndex(), index, "the index never goes back")
			index = m.GetIndex()
			for _, r := range m.GetRecords() {
				state[r.GetKey()] = string(r.GetValue())
			}
			return state["local/"+key] != ""
		})
	}
	set(t, cl, "k/1", "v")
	until("k/1")
	leader.Kill()
	set(t, cl, "k/2", "v")
	until("k/2")

	// The one that was away is brought up by a snapshot and resumes its clients' watches.
	for i := range 60 {
		set(t, cl, fmt.Sprintf("k/more/%d", i), "v")
	}
	for _, s := range c.Servers {
		if s.Running() {
			require.NoError(t, s.Snapshot())
		}
	}
	leader.Start()
	late := c.Client(leader)
	var resumed registryv1.WatchService_WatchClient
	c.Eventually(func() error {
		var err error
		resumed, err = late.Watch.Watch(late.Ctx(), &registryv1.WatchRequest{Table: registryv1.Table_TABLE_KV, KeyPrefix: "k", Index: index, Heartbeat: durationpb.New(heartbeat)})
		require.NoError(t, err)
		_, err = resumed.Recv()
		return err
	})
	missing, told := 60, false
	for missing > 0 && !told {
		m, err := resumed.Recv()
		require.NoError(t, err)
		missing -= len(m.GetRecords())
		told = m.GetResync()
	}
	if told {
		again, err := late.Watch.Watch(late.Ctx(), &registryv1.WatchRequest{Table: registryv1.Table_TABLE_KV, KeyPrefix: "k"})
		require.NoError(t, err)
		seen := 0
		follow(t, again, func(m *registryv1.WatchResponse) bool {
			seen += len(m.GetRecords())
			return m.GetSynced()
		})
		require.Equal(t, 62, seen)
	}
}

// The Raft library tells followers of a commit with its next message, twenty milliseconds later at
// the least.
func TestAFollowersWatchersHearOfAWriteAtOnce(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	writer, cl := c.Client(c.Leader()), c.Client(c.Follower())
	stream, err := cl.Watch.Watch(cl.Ctx(), &registryv1.WatchRequest{Table: registryv1.Table_TABLE_KV, Key: "local/k"})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.NoError(t, err)
	var took []time.Duration
	for range 31 {
		set(t, writer, "k", "v")
		acknowledged := time.Now()
		follow(t, stream, func(m *registryv1.WatchResponse) bool { return len(m.GetRecords()) > 0 })
		took = append(took, time.Since(acknowledged))
	}
	slices.Sort(took)
	require.Less(t, took[len(took)/2], 18*time.Millisecond, "half of them")
}
