package failoverrouter_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/konsultest/contracttest"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
)

func TestTheWorldsRegistryKeepsWhatRoutersRelyOn(t *testing.T) {
	w := newWorld(t)
	conn, err := rpc.Dial([]string{w.registry}, rpc.ClientParams{
		Identity: w.ca.Source(east, "failover-router"), Want: identity.Want{Service: "registry"}, Telemetry: obs.Discard(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	contracttest.Discovery(t, contracttest.Discoverable{
		Conn: conn, Datacenter: east,
		Put: func(*testing.T) { w.set(east, instance("api-1", "10.0.0.1:80")) },
		SetPolicy: func(_ *testing.T, policy *registryv1.FailoverPolicy) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.policies[policy.GetService()] = policy
		},
	})
}
