package registry_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/requestid"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/registrytest"
)

// repeated are writes of every kind that can be made again: with changed, they ask for something
// else.
func repeated(changed bool) map[string]func(context.Context, *registrytest.Client) (*registryv1.WriteMeta, error) {
	word := "first"
	if changed {
		word = "other"
	}
	setting := func(id string) *registryv1.SetRequest {
		return &registryv1.SetRequest{Key: id, Value: []byte(word), RequestId: id}
	}
	return map[string]func(context.Context, *registrytest.Client) (*registryv1.WriteMeta, error){
		"set": func(ctx context.Context, cl *registrytest.Client) (*registryv1.WriteMeta, error) {
			resp, err := cl.KV.Set(ctx, setting("r-set"))
			return resp.GetMeta(), err
		},
		"batch": func(ctx context.Context, cl *registrytest.Client) (*registryv1.WriteMeta, error) {
			resp, err := cl.KV.Batch(ctx, &registryv1.BatchRequest{Operations: []*registryv1.BatchOperation{
				{Operation: &registryv1.BatchOperation_Set{Set: setting("r-batch")}},
			}})
			if err == nil && resp.GetResults()[0].GetStatus() != nil {
				err = failure(resp.GetResults()[0])
			}
			return resp.GetResults()[0].GetSet().GetMeta(), err
		},
		"transaction": func(ctx context.Context, cl *registrytest.Client) (*registryv1.WriteMeta, error) {
			resp, err := cl.KV.Txn(ctx, &registryv1.TxnRequest{RequestId: "r-txn", Success: []*registryv1.TxnOperation{
				{Operation: &registryv1.TxnOperation_Set{Set: &registryv1.TxnSet{Key: "t", Value: []byte(word)}}},
			}})
			return resp.GetMeta(), err
		},
		"registration": func(ctx context.Context, cl *registrytest.Client) (*registryv1.WriteMeta, error) {
			resp, err := cl.Catalog.RegisterNode(ctx, &registryv1.RegisterNodeRequest{
				Node: &registryv1.Node{Name: "n1", Address: "10.0.0.1", Meta: map[string]string{"word": word}}, RequestId: "r-node",
			})
			return resp.GetMeta(), err
		},
		"policy": func(ctx context.Context, cl *registrytest.Client) (*registryv1.WriteMeta, error) {
			resp, err := cl.ACL.CreatePolicy(ctx, &registryv1.CreatePolicyRequest{
				Policy: &registryv1.ACLPolicy{Name: "p", Description: word}, RequestId: "r-policy",
			})
			return resp.GetMeta(), err
		},
	}
}

func TestARequestIDStandsForOneRequest(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	first := map[string]*registryv1.WriteMeta{}
	for name, write := range repeated(false) {
		cl := c.Client(c.Servers[0])
		meta, err := write(cl.Ctx(), cl)
		require.NoError(t, err, name)
		first[name] = meta
	}
	check := func() {
		for _, s := range c.Servers {
			cl := c.Client(s)
			for name, write := range repeated(false) {
				meta, err := write(cl.Ctx(), cl)
				require.NoError(t, err, name)
				if name == "registration" {
					continue // There is nothing to do any more, which costs no commit.
				}
				require.Equal(t, first[name].GetIndex(), meta.GetIndex(), name)
			}
			for name, write := range repeated(true) {
				_, err := write(cl.Ctx(), cl)
				require.Equal(t, "REQUEST_ID_REUSED", fault.ReasonOf(err), "%s: %v", name, err)
				f, ok := fault.As(err)
				require.True(t, ok)
				require.Equal(t, "request_id", f.Field(), name)
			}
		}
		cl := c.Client(c.Leader())
		require.Equal(t, "first", get(t, cl, "r-set", registryv1.ReadMode_READ_MODE_LINEARIZABLE))
		require.Equal(t, "first", get(t, cl, "r-batch", registryv1.ReadMode_READ_MODE_LINEARIZABLE))
		require.Equal(t, "first", get(t, cl, "t", registryv1.ReadMode_READ_MODE_LINEARIZABLE))
	}
	check()
	leader := c.Leader()
	leader.Kill()
	c.Leader()
	leader.Start()
	c.WaitReady()
	check()
}

// The remedy of an unknown outcome can be followed by who never chose an id.
func TestAWriteOfUnknownOutcomeIsRepeatedWithTheIDOfItsError(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, 3, registrytest.Options{Wired: true})
	cl := c.Client(c.Leader())
	for _, s := range c.Servers {
		s.Cut()
	}
	_, err := cl.KV.Set(cl.Ctx(), &registryv1.SetRequest{Key: "k", Value: []byte("1")})
	for _, s := range c.Servers {
		s.Heal()
	}
	require.Equal(t, fault.ReasonOutcomeUnknown, fault.ReasonOf(err), "%v", err)
	f, ok := fault.As(err)
	require.True(t, ok)
	id := f.Meta()[requestid.MetaKey]
	require.True(t, requestid.Minted(id), "%q", id)
	require.Contains(t, f.Remedy(), "--request-id "+id)

	c.WaitReady()
	again := &registryv1.SetRequest{Key: "k", Value: []byte("1"), RequestId: id}
	done, err := cl.KV.Set(cl.Ctx(), again)
	require.NoError(t, err)
	_, err = cl.KV.Set(cl.Ctx(), &registryv1.SetRequest{Key: "k", Value: []byte("2")})
	require.NoError(t, err)
	for _, s := range c.Servers {
		cl := c.Client(s)
		answer, err := cl.KV.Set(cl.Ctx(), again)
		require.NoError(t, err)
		require.Equal(t, done.GetMeta().GetIndex(), answer.GetMeta().GetIndex(), "answered from the record")
		require.Equal(t, "2", get(t, cl, "k", registryv1.ReadMode_READ_MODE_LINEARIZABLE))
	}
}
