package registry_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsultest/contracttest"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/registrytest"
)

func TestItKeepsWhatAgentsRelyOn(t *testing.T) {
	t.Parallel()
	contracttest.Catalog(t, func(t *testing.T) grpc.ClientConnInterface {
		c := registrytest.StartCluster(t, 1)
		return c.Conn(c.Servers[0], c.DC, "agent")
	})
}

func TestItKeepsWhatRoutersRelyOn(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	contracttest.Discovery(t, contracttest.Discoverable{
		Conn: c.Conn(c.Servers[0], c.DC, "failover-router"), Datacenter: c.DC,
		Put: func(t *testing.T) {
			_, err := cl.Catalog.Register(cl.Ctx(), &registryv1.RegisterRequest{
				Node: &registryv1.Node{Name: "n1", Address: "10.0.0.1"}, Service: &registryv1.Service{Id: "api-1", Name: "api", Port: 80},
			})
			require.NoError(t, err)
		},
		SetPolicy: func(t *testing.T, policy *registryv1.FailoverPolicy) {
			_, err := cl.Catalog.SetFailoverPolicy(cl.Ctx(), &registryv1.SetFailoverPolicyRequest{Policy: policy})
			require.NoError(t, err)
		},
	})
}

func TestItKeepsWhatReplicatorsRelyOn(t *testing.T) {
	t.Parallel()
	contracttest.Replication(t, func(t *testing.T) contracttest.Replicated {
		p := startPair(t)
		primary, secondary := p.one.Client(p.one.Servers[0]), p.two.Client(p.two.Servers[0])
		copyTokens(t, p)
		return contracttest.Replicated{
			Source: p.one.Conn(p.one.Servers[0], "dc2", "replicator"), Target: p.two.Conn(p.two.Servers[0], "dc2", "replicator"),
			Primary: "dc1", Secondary: "dc2", FederationID: p.fed,
			Set: func(t *testing.T, key, value string) { set(t, primary, "global/"+key, value) },
			Delete: func(t *testing.T, key string) {
				_, err := primary.KV.Delete(primary.Ctx(), &registryv1.DeleteRequest{Key: "global/" + key})
				require.NoError(t, err)
			},
			Touch: func(t *testing.T) { set(t, primary, "noise", "x") },
			Value: func(t *testing.T, key string) string {
				resp, err := secondary.KV.Get(secondary.Ctx(), &registryv1.GetRequest{Key: "global/" + key})
				if fault.CodeOf(err) == fault.NotFound {
					return ""
				}
				require.NoError(t, err)
				return string(resp.GetEntry().GetValue())
			},
		}
	})
}

// copyTokens copies what dc1 has made by itself to dc2, its token among it, and leaves the cursor
// at 0.
func copyTokens(t *testing.T, p *pair) {
	t.Helper()
	source := p.one.ClientAs(p.one.Servers[0], "dc2", "replicator")
	stream, err := source.Replication.Replicate(source.Bare(), p.request(0))
	require.NoError(t, err)
	m, err := stream.Recv()
	require.NoError(t, err)
	require.True(t, m.GetComplete())
	sink := p.two.ClientAs(p.two.Servers[0], "dc2", "replicator")
	_, err = sink.Replication.ApplyReplicated(sink.Bare(), &federationv1.ApplyReplicatedRequest{
		SourceDc: "dc1", Entries: m.GetEntries(), Cursor: &federationv1.ReplicationCursor{SourceDatacenter: "dc1", Epoch: 1},
	})
	require.NoError(t, err)
}
