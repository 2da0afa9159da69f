package command_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/konsul/konsultest"
)

const tagOfTraefik = "traefik.http.routers.mw.middlewares=auth,gzip"

func TestATagIsOneTagWhateverIsInIt(t *testing.T) {
	gateway := federation(t)
	r := ctl(t, gateway, "", "service", "register", "--name", "mw", "--address", "192.0.2.4", "--tag", tagOfTraefik, "--tag", `a"b`, "--meta", "k=v,w")
	require.Zero(t, r.code, r.stderr)
	service := konsultest.Last[*registryv1.RegisterRequest](gateway).GetService()
	require.Equal(t, []string{tagOfTraefik, `a"b`}, service.GetTags())
	require.Equal(t, map[string]string{"k": "v,w"}, service.GetMeta())
	require.Zero(t, ctl(t, gateway, "", "service", "get", "mw", "--tag", tagOfTraefik).code)
	require.Equal(t, []string{tagOfTraefik}, konsultest.Last[*registryv1.QueryServiceRequest](gateway).GetTags())
	require.Zero(t, ctl(t, gateway, "", "service", "list", "--tag", tagOfTraefik).code)
	require.Equal(t, []string{tagOfTraefik}, konsultest.Last[*registryv1.ListServicesRequest](gateway).GetTags())
}

func TestTablesShowWhereATagEndsAndWhoWatches(t *testing.T) {
	gateway := federation(t)
	konsultest.On(gateway, func(*registryv1.QueryServiceRequest) (*registryv1.QueryServiceResponse, error) {
		i := instance("us-west", "api-1", passing)
		i.Service.Tags, i.Unchecked = []string{"v1", tagOfTraefik}, true
		return &registryv1.QueryServiceResponse{Instances: []*registryv1.ServiceInstance{i}}, nil
	})
	out := ctl(t, gateway, "", "service", "get", "api").stdout
	require.Contains(t, out, `v1,"traefik.http.routers.mw.middlewares=auth,gzip"`)
	require.Contains(t, out, "passing (no checks)")
}

func TestAddressesAreTakenAsTheyAreTyped(t *testing.T) {
	for name, c := range map[string]struct {
		args                       []string
		node, nodeAddress, address string
	}{
		"IPv4":                  {[]string{"--address", "192.0.2.1"}, "192.0.2.1", "192.0.2.1", "192.0.2.1"},
		"IPv6 loopback":         {[]string{"--address", "::1"}, "0000:0000:0000:0000:0000:0000:0000:0001", "::1", "::1"},
		"IPv6 that ends in ::":  {[]string{"--address", "2001:db8:1::"}, "2001:0db8:0001:0000:0000:0000:0000:0000", "2001:db8:1::", "2001:db8:1::"},
		"IPv6 in capitals":      {[]string{"--address", "2001:DB8:0::1"}, "2001:db8::1", "2001:db8::1", "2001:db8::1"},
		"IPv4 in IPv6":          {[]string{"--address", "::ffff:192.0.2.1"}, "192.0.2.1", "192.0.2.1", "192.0.2.1"},
		"on a node":             {[]string{"--address", "192.0.2.1", "--node", "web-1"}, "web-1", "", "192.0.2.1"},
		"on a node, by address": {[]string{"--address", "192.0.2.1", "--node-address", "192.0.2.9"}, "192.0.2.9", "192.0.2.9", "192.0.2.1"},
		"on a node alone":       {[]string{"--node", "web-1"}, "web-1", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			gateway := federation(t)
			r := ctl(t, gateway, "", append([]string{"service", "register", "--name", "six", "--port", "80"}, c.args...)...)
			require.Zero(t, r.code, r.stderr)
			got := konsultest.Last[*registryv1.RegisterRequest](gateway)
			require.Equal(t, c.node, got.GetNode().GetName())
			require.Equal(t, c.nodeAddress, got.GetNode().GetAddress())
			require.Equal(t, c.address, got.GetService().GetAddress())
			require.Empty(t, got.GetService().GetId(), "without --id the registry takes the name")
		})
	}
}

func TestWhatIsNoAddressIsRefusedByItsFlag(t *testing.T) {
	for _, address := range []string{"256.256.256.256", "192.168.1.1.1", "0.0.0.0", "::", "010.1.2.3", "[::1]", "192.0.2.1:80", "a b"} {
		for flag, args := range map[string][]string{
			"--address":      {"service", "register", "--name", "x", "--address", address},
			"--node-address": {"service", "register", "--name", "x", "--address", "192.0.2.1", "--node-address", address},
		} {
			r := ctl(t, federation(t), "", args...)
			require.Equal(t, 2, r.code)
			require.Contains(t, r.stderr, flag+": ")
			require.Contains(t, r.stderr, "remedy: ")
		}
		r := ctl(t, federation(t), "", "node", "register", "n1", "--address", address)
		require.Equal(t, 2, r.code)
		require.Contains(t, r.stderr, "--address: ")
	}
}

func TestAnIDThatIsTakenNamesTheFlagsThatHelp(t *testing.T) {
	gateway := federation(t)
	line := []string{"service", "register", "--name", "api", "--id", "taken", "--address", "192.0.2.1"}
	r := ctl(t, gateway, "", line...)
	require.Equal(t, 1, r.code)
	require.Contains(t, r.stderr, `--id: "taken" is an instance of service web on node web-1, registered by agent`)
	require.Contains(t, r.stderr, "--replace")
	r = ctl(t, gateway, "", append(line, "--replace")...)
	require.Zero(t, r.code, r.stderr)
	require.True(t, konsultest.Last[*registryv1.RegisterRequest](gateway).GetReplace())
}

func TestTTLMakesACheckAndSaysWhatKeepsItAlive(t *testing.T) {
	gateway := federation(t)
	r := ctl(t, gateway, "", "service", "register", "--name", "api", "--address", "192.0.2.1", "--ttl", "30s")
	require.Zero(t, r.code, r.stderr)
	check := konsultest.Last[*registryv1.RegisterRequest](gateway).GetChecks()[0]
	require.Equal(t, "ttl", check.GetId())
	require.Equal(t, passing, check.GetStatus())
	require.Equal(t, 30*time.Second, check.GetTtl().AsDuration())
	require.Contains(t, r.stderr, "konsulctl check pass ttl --instance api")
	require.Contains(t, ctl(t, gateway, "", "service", "register", "--name", "api", "--address", "192.0.2.1").stderr, "no checks")
}

func TestANodeKeepsTheExpectationOfHeartbeatsThatIsNotNamed(t *testing.T) {
	gateway := federation(t)
	require.Zero(t, ctl(t, gateway, "", "node", "register", "web-1", "--address", "192.0.2.1").code)
	require.Nil(t, konsultest.Last[*registryv1.RegisterNodeRequest](gateway).GetNode().GetLivenessTtl())
	require.Zero(t, ctl(t, gateway, "", "node", "register", "web-1", "--address", "192.0.2.1", "--liveness-ttl", "0").code)
	ttl := konsultest.Last[*registryv1.RegisterNodeRequest](gateway).GetNode().GetLivenessTtl()
	require.NotNil(t, ttl)
	require.Zero(t, ttl.AsDuration())
}

func TestErrorsNameTheArgumentThatWasTyped(t *testing.T) {
	for line, says := range map[string]string{
		"service deregister ghost": "id: no service instance",
		"node get ghost":           "name: no node",
		"node deregister ghost":    "name: no node",
	} {
		r := ctl(t, federation(t), "", asArguments(line)...)
		require.Equal(t, 3, r.code)
		require.Contains(t, r.stderr, says)
	}
}
