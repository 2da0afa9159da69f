package node_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/konsul/konsultest"
	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

func TestANodeKeepsTheExpectationOfHeartbeatsThatIsNotNamed(t *testing.T) {
	gateway := commandtest.Federation(t)
	require.Zero(t, commandtest.Ctl(t, gateway, "", "node", "register", "web-1", "--address", "192.0.2.1").Code)
	require.Nil(t, konsultest.Last[*registryv1.RegisterNodeRequest](gateway).GetNode().GetLivenessTtl())
	require.Zero(t, commandtest.Ctl(t, gateway, "", "node", "register", "web-1", "--address", "192.0.2.1", "--liveness-ttl", "0").Code)
	ttl := konsultest.Last[*registryv1.RegisterNodeRequest](gateway).GetNode().GetLivenessTtl()
	require.NotNil(t, ttl)
	require.Zero(t, ttl.AsDuration())
}
