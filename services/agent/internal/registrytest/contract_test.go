package registrytest_test

import (
	"testing"

	"google.golang.org/grpc"

	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/pkg/konsultest/contracttest"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	"konsul.dev/services/agent/internal/registrytest"
)

func TestTheFakeKeepsWhatAgentsRelyOn(t *testing.T) {
	contracttest.Catalog(t, func(t *testing.T) grpc.ClientConnInterface {
		ca := identitytest.NewCA(t, identitytest.FederationID)
		registry := registrytest.Start(t, ca.Source("us-east", "registry"))
		conn, err := rpc.Dial([]string{registry.Addr()}, rpc.ClientParams{
			Identity: ca.Source("us-east", "agent"), Want: identity.Want{Service: "registry"}, Telemetry: obs.Discard(),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	})
}
