package registry_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/status"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/kv"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/registrytest"
)

func setOp(key, value string) *registryv1.BatchOperation {
	return &registryv1.BatchOperation{Operation: &registryv1.BatchOperation_Set{Set: &registryv1.SetRequest{Key: key, Value: []byte(value)}}}
}

func getOp(key string) *registryv1.BatchOperation {
	return &registryv1.BatchOperation{Operation: &registryv1.BatchOperation_Get{Get: &registryv1.GetRequest{Key: key}}}
}

func failure(r *registryv1.BatchResult) error {
	return rpc.FromStatus(status.ErrorProto(r.GetStatus()))
}

func TestABatchAnswersEachOperationByItself(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	for i, s := range c.Servers {
		cl, a, b := c.Client(s), fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i)
		first := set(t, cl, a, "before")
		wrong := uint64(1)
		resp, err := cl.KV.Batch(cl.Ctx(), &registryv1.BatchRequest{Operations: []*registryv1.BatchOperation{
			getOp(a),
			setOp(b, "1"),
			setOp(b, "2"),
			{Operation: &registryv1.BatchOperation_Set{Set: &registryv1.SetRequest{Key: a, Value: []byte("x"), Cas: &wrong}}},
			getOp("nothing"),
			setOp("/bad", "x"),
			{Operation: &registryv1.BatchOperation_Delete{Delete: &registryv1.DeleteRequest{Key: "gone"}}},
			{},
			{Operation: &registryv1.BatchOperation_Get{Get: &registryv1.GetRequest{Key: a, Index: 5}}},
		}})
		require.NoError(t, err)
		results := resp.GetResults()
		require.Len(t, results, 9)
		require.Equal(t, "before", string(results[0].GetGet().GetEntry().GetValue()))
		require.GreaterOrEqual(t, results[0].GetGet().GetMeta().GetIndex(), first.GetMeta().GetIndex())
		one, two := results[1].GetSet().GetEntry(), results[2].GetSet().GetEntry()
		require.NotEqual(t, one.GetModifyIndex(), two.GetModifyIndex(), "one key never has two values at one index")
		require.EqualValues(t, 3, one.GetVersion()+two.GetVersion())
		require.Equal(t, record.ReasonCASMismatch, fault.ReasonOf(failure(results[3])))
		require.Equal(t, kv.ReasonKeyNotFound, fault.ReasonOf(failure(results[4])))
		require.Equal(t, fault.InvalidArgument, fault.CodeOf(failure(results[5])))
		require.Zero(t, results[6].GetDelete().GetDeleted())
		require.Equal(t, fault.InvalidArgument, fault.CodeOf(failure(results[7])))
		require.Equal(t, fault.InvalidArgument, fault.CodeOf(failure(results[8])))

		reads := []*registryv1.BatchOperation{getOp(a), getOp(b)}
		for _, mode := range []registryv1.ReadMode{registryv1.ReadMode_READ_MODE_DEFAULT, registryv1.ReadMode_READ_MODE_LINEARIZABLE} {
			resp, err = c.Client(c.Follower()).KV.Batch(cl.Ctx(), &registryv1.BatchRequest{Operations: reads, ReadMode: mode})
			require.NoError(t, err)
			require.Equal(t, "before", string(resp.GetResults()[0].GetGet().GetEntry().GetValue()))
			require.EqualValues(t, 2, resp.GetResults()[1].GetGet().GetEntry().GetVersion())
		}
	}
	cl := c.Client(c.Servers[0])
	_, err := cl.KV.Batch(cl.Ctx(), &registryv1.BatchRequest{})
	require.Equal(t, fault.InvalidArgument, fault.CodeOf(err))
	_, err = cl.KV.Batch(cl.Ctx(), &registryv1.BatchRequest{Operations: make([]*registryv1.BatchOperation, 1001)})
	require.Equal(t, fault.InvalidArgument, fault.CodeOf(err))
}

func TestABatchTakesGlobalWritesToThePrimary(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	p.replicate() // Brings the token.
	cl := p.two.Client(p.two.Servers[0])
	resp, err := cl.KV.Batch(cl.Ctx(), &registryv1.BatchRequest{Operations: []*registryv1.BatchOperation{
		setOp("global/x", "everywhere"), setOp("x", "here"),
		{Operation: &registryv1.BatchOperation_Delete{Delete: &registryv1.DeleteRequest{Key: "global/y"}}},
	}})
	require.NoError(t, err)
	require.Equal(t, "dc1", resp.GetResults()[0].GetSet().GetMeta().GetDatacenter())
	require.Equal(t, "dc2", resp.GetResults()[1].GetSet().GetMeta().GetDatacenter())
	require.Equal(t, "dc1", resp.GetResults()[2].GetDelete().GetMeta().GetDatacenter())
	far, err := cl.KV.Batch(cl.Ctx(), &registryv1.BatchRequest{Datacenter: "dc1", Operations: []*registryv1.BatchOperation{getOp("x")}})
	require.NoError(t, err)
	require.Equal(t, "everywhere", string(far.GetResults()[0].GetGet().GetEntry().GetValue()))
}
