package registrytest_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"

	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/pkg/konsultest/contracttest"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	"konsul.dev/services/replicator/internal/registrytest"
)

func TestTheFakeKeepsWhatReplicatorsRelyOn(t *testing.T) {
	contracttest.Replication(t, func(t *testing.T) contracttest.Replicated {
		ca := identitytest.NewCA(t, identitytest.FederationID)
		record := &federationv1.Federation{Id: identitytest.FederationID, Epoch: 1, PrimaryDatacenter: "us-east"}
		east := registrytest.Start(t, ca.Source("us-east", "registry"), record)
		west := registrytest.Start(t, ca.Source("us-west", "registry"), record)
		dial := func(dc string, r *registrytest.Registry) grpc.ClientConnInterface {
			conn, err := rpc.Dial([]string{r.Addr()}, rpc.ClientParams{
				Identity: ca.Source("us-west", "replicator"), Want: identity.Want{Datacenter: dc, Service: "registry"}, Telemetry: obs.Discard(),
			})
			require.NoError(t, err)
			t.Cleanup(func() { _ = conn.Close() })
			return conn
		}
		return contracttest.Replicated{
			Source: dial("us-east", east), Target: dial("us-west", west),
			Primary: "us-east", Secondary: "us-west", FederationID: identitytest.FederationID,
			Set: func(_ *testing.T, key, value string) {
				east.Commit(&federationv1.ReplicatedEntry{Key: "global/" + key, Value: []byte(value)})
			},
			Delete: func(_ *testing.T, key string) {
				east.Commit(&federationv1.ReplicatedEntry{Key: "global/" + key, Deleted: true})
			},
			Touch: func(*testing.T) { east.Touch() },
			Value: func(_ *testing.T, key string) string { return west.Value("global/" + key) },
		}
	})
}
