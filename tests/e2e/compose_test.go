package e2e

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"
	"konsul.dev/tests/framework"
)

// TestStoryInContainers tells the story on containers, with the failures only a network can have: a
// datacenter cut off the WAN and joined again, and one whose containers are killed and started
// again.
func TestStoryInContainers(t *testing.T) {
	if testing.Short() {
		t.Skip("the compose story takes minutes")
	}
	c := framework.StartCompose(t)
	s := story{t: t, access: map[string]framework.Access{}}
	for _, dc := range framework.Datacenters() {
		s.access[dc] = c.Access(dc)
	}
	for _, dc := range framework.Datacenters() {
		for _, id := range c.Containers(dc) {
			require.NotContains(t, c.Logs(id), "secret file is open", "a warning in the default set-up is noise")
		}
	}
	s.registersAndDiscovers()
	s.sharesGlobalKeysAndKeepsLocalOnes()

	c.CutOff(framework.EUCentral)
	framework.Eventually(t, 2*soon, "us-east sees eu-central fail", func() error {
		return s.state(framework.USEast, framework.EUCentral, wangossipv1.DatacenterState_DATACENTER_STATE_FAILED)
	})
	s.access[framework.EUCentral].MustCTL(t, "kv", "set", "cut-off", "but serving")
	s.reads(framework.EUCentral, "but serving", "cut-off")
	s.reads(framework.EUCentral, "true", "config/feature_flags/new_ui")
	s.access[framework.USEast].MustCTL(t, "kv", "set", "--global", "while/away", "caught up")
	c.Rejoin(framework.EUCentral)
	s.reads(framework.EUCentral, "caught up", "while/away")
	framework.Eventually(t, 2*soon, "us-east sees eu-central alive", func() error {
		return s.state(framework.USEast, framework.EUCentral, wangossipv1.DatacenterState_DATACENTER_STATE_ALIVE)
	})

	s.survivesTheLossOf(framework.USEast, func() { c.Kill(framework.USEast) })
	s.routesAround(framework.USEast, published(t, "KONSUL_US_WEST_PROXY_PORT", 28553))
	c.Start(framework.USEast)
	s.welcomesBack(framework.USEast)
}

// published returns where compose publishes a proxy, as its environment may override it.
func published(t *testing.T, variable string, port int) string {
	t.Helper()
	if value := os.Getenv(variable); value != "" {
		_, err := fmt.Sscan(value, &port)
		require.NoError(t, err)
	}
	return fmt.Sprintf("http://127.0.0.1:%d", port)
}
