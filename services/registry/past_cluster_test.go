package registry_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/registrytest"
)

func TestTheStateAsOfAnIndexIsTheSameOnEveryServer(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	writer := c.Client(c.Leader())
	first := set(t, writer, "k", "1").GetMeta().GetIndex()
	register(t, writer, "n1", "web-1", "web")
	second := set(t, writer, "k", "2").GetMeta().GetIndex()
	set(t, writer, "k2", "x")
	register(t, writer, "n2", "web-2", "web")
	_, err := writer.KV.Delete(writer.Ctx(), &registryv1.DeleteRequest{Key: "k"})
	require.NoError(t, err)

	for _, s := range c.Servers {
		cl := c.Client(s)
		read := func(at uint64) (*registryv1.GetResponse, error) {
			return cl.KV.Get(cl.Ctx(), &registryv1.GetRequest{Key: "k", AtIndex: at, ReadMode: registryv1.ReadMode_READ_MODE_STALE})
		}
		got, err := read(first)
		require.NoError(t, err)
		require.Equal(t, "1", string(got.GetEntry().GetValue()))
		require.Equal(t, first, got.GetMeta().GetIndex())
		got, err = read(second)
		require.NoError(t, err)
		require.Equal(t, "2", string(got.GetEntry().GetValue()))
		_, err = read(first - 1)
		require.Equal(t, fault.NotFound, fault.CodeOf(err))
		_, err = cl.KV.Get(cl.Ctx(), &registryv1.GetRequest{Key: "k"})
		require.Equal(t, fault.NotFound, fault.CodeOf(err), "it is deleted now")

		page, err := cl.KV.List(cl.Ctx(), &registryv1.ListRequest{Prefix: "k", AtIndex: second})
		require.NoError(t, err)
		require.Len(t, page.GetEntries(), 1)

		web, err := cl.Catalog.QueryService(cl.Ctx(), &registryv1.QueryServiceRequest{Service: "web", AtIndex: second})
		require.NoError(t, err)
		require.Len(t, web.GetInstances(), 1)
		require.Equal(t, "web-1", web.GetInstances()[0].GetService().GetId())
		require.Equal(t, second, web.GetMeta().GetIndex())
		web, err = cl.Catalog.QueryService(cl.Ctx(), &registryv1.QueryServiceRequest{Service: "web", AtIndex: first})
		require.NoError(t, err)
		require.Empty(t, web.GetInstances())
		services, err := cl.Catalog.ListServices(cl.Ctx(), &registryv1.ListServicesRequest{AtIndex: second})
		require.NoError(t, err)
		require.EqualValues(t, 1, services.GetServices()[0].GetInstances())
		nodes, err := cl.Catalog.ListNodes(cl.Ctx(), &registryv1.ListNodesRequest{AtIndex: second})
		require.NoError(t, err)
		require.Len(t, nodes.GetNodes(), 1)
	}
}

func TestAnIndexThatCannotBeReadIsRefusedByName(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	index := set(t, cl, "k", "1").GetMeta().GetIndex()
	start := time.Now()
	_, err := cl.KV.Get(cl.Ctx(), &registryv1.GetRequest{Key: "k", AtIndex: index + 1000})
	f, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.FailedPrecondition, f.Code())
	require.Equal(t, record.ReasonAhead, f.Reason())
	require.Equal(t, "at_index", f.Field())
	require.Less(t, time.Since(start), 10*time.Second)
	_, err = cl.Catalog.QueryService(cl.Ctx(), &registryv1.QueryServiceRequest{Service: "web", AtIndex: index + 1000})
	require.Equal(t, record.ReasonAhead, fault.ReasonOf(err))
	_, err = cl.KV.List(cl.Ctx(), &registryv1.ListRequest{AtIndex: index, Index: index})
	f, ok = fault.As(err)
	require.True(t, ok)
	require.Equal(t, "at_index", f.Field())

	// One that comes soon is waited for.
	late := make(chan error, 1)
	go func() {
		_, err := cl.KV.Get(cl.Ctx(), &registryv1.GetRequest{Key: "k", AtIndex: index + 1})
		late <- err
	}()
	c.Eventually(func() error {
		set(t, cl, "other", "x")
		return nil
	})
	require.NoError(t, <-late)

	batch, err := cl.KV.Batch(cl.Ctx(), &registryv1.BatchRequest{Operations: []*registryv1.BatchOperation{
		{Operation: &registryv1.BatchOperation_Get{Get: &registryv1.GetRequest{Key: "k", AtIndex: index}}},
	}})
	require.NoError(t, err)
	require.Contains(t, batch.GetResults()[0].GetStatus().GetMessage(), "is not the state that a batch reads")
}

func TestWhatIsOlderThanTheRetentionIsRefused(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, 1, registrytest.Options{Adjust: func(cfg *registry.Config) { cfg.Registry.Retention.Indexes = 1024 }})
	cl := c.Client(c.Servers[0])
	old := set(t, cl, "k", "1").GetMeta().GetIndex()
	index := old
	for index < old+1100 {
		index = set(t, cl, "other", "x").GetMeta().GetIndex()
	}
	_, err := cl.KV.Get(cl.Ctx(), &registryv1.GetRequest{Key: "k", AtIndex: old})
	f, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.OutOfRange, f.Code())
	require.Equal(t, record.ReasonCompacted, f.Reason())
	oldest, err := strconv.ParseUint(f.Meta()["oldest"], 10, 64)
	require.NoError(t, err)
	require.Equal(t, index-1024, oldest)
	_, err = cl.KV.Get(cl.Ctx(), &registryv1.GetRequest{Key: "k", AtIndex: index})
	require.NoError(t, err)

	stream, err := cl.Watch.Watch(cl.Ctx(), &registryv1.WatchRequest{Table: registryv1.Table_TABLE_KV, Key: "k", Index: old})
	require.NoError(t, err)
	m, err := stream.Recv()
	require.NoError(t, err)
	require.True(t, m.GetResync(), "a watch that would have missed something is told to start again")
}
