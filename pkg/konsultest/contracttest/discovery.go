package contracttest

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
)

// Discoverable is a registry with what a test may put into it.
type Discoverable struct {
	// Conn is a connection over which a failover-router calls.
	Conn grpc.ClientConnInterface
	// Datacenter is the registry's.
	Datacenter string
	// Put makes the one instance of the service api: api-1 at 10.0.0.1:80, passing.
	Put func(t *testing.T)
	// SetPolicy sets a failover policy.
	SetPolicy func(t *testing.T, policy *registryv1.FailoverPolicy)
}

// Discovery is what a failover-router relies on.
func Discovery(t *testing.T, r Discoverable) {
	catalog := registryv1.NewCatalogServiceClient(r.Conn)
	query := func() *registryv1.QueryServiceResponse {
		resp, err := catalog.QueryService(deadline(t), &registryv1.QueryServiceRequest{Service: "api", Datacenter: r.Datacenter})
		require.NoError(t, err)
		require.Equal(t, r.Datacenter, resp.GetMeta().GetDatacenter())
		return resp
	}
	require.Empty(t, query().GetInstances(), "a service that nobody runs is no error")
	r.Put(t)
	instances := query().GetInstances()
	require.Len(t, instances, 1)
	require.Equal(t, "api-1", instances[0].GetService().GetId())
	require.EqualValues(t, 80, instances[0].GetService().GetPort())
	require.Equal(t, "10.0.0.1", instances[0].GetNode().GetAddress())
	require.Equal(t, passing, instances[0].GetStatus())

	_, err := catalog.GetFailoverPolicy(deadline(t), &registryv1.GetFailoverPolicyRequest{Service: "api"})
	refused(t, fault.NotFound, "FAILOVER_POLICY_NOT_FOUND", err)
	r.SetPolicy(t, policy("us-west"))
	resp, err := catalog.GetFailoverPolicy(deadline(t), &registryv1.GetFailoverPolicyRequest{Service: "api"})
	require.NoError(t, err)
	require.Equal(t, []string{"us-west"}, targets(resp.GetPolicy()))
}
