package registry_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/services/registry/registrytest"
)

func TestAServerDoesNotStartWithTheStateOfAnotherFederation(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	server := c.Servers[0]
	set(t, c.Client(server), "k", "v")
	server.Stop()

	own := server.Enrol(identitytest.NewCA(t, uuid.NewString()))
	err := server.TryStart()
	require.Equal(t, "MIXED_FEDERATIONS", fault.ReasonOf(err), "%v", err)
	require.ErrorContains(t, err, own.Source("dc1", "registry").ID().FederationID)

	server.Enrol(own)
	server.Start()
	c.WaitReady()
	require.Equal(t, "v", get(t, c.Client(server), "k", 0))
}
