package service_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/konsul/konsultest"
	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

const tagOfTraefik = "traefik.http.routers.mw.middlewares=auth,gzip"

func TestATagIsOneTagWhateverIsInIt(t *testing.T) {
	gateway := commandtest.Federation(t)
	r := commandtest.Ctl(t, gateway, "", "service", "register", "--name", "mw", "--address", "192.0.2.4", "--tag", tagOfTraefik, "--tag", `a"b`, "--meta", "k=v,w")
	require.Zero(t, r.Code, r.Stderr)
	service := konsultest.Last[*registryv1.RegisterRequest](gateway).GetService()
	require.Equal(t, []string{tagOfTraefik, `a"b`}, service.GetTags())
	require.Equal(t, map[string]string{"k": "v,w"}, service.GetMeta())
	require.Zero(t, commandtest.Ctl(t, gateway, "", "service", "get", "mw", "--tag", tagOfTraefik).Code)
	require.Equal(t, []string{tagOfTraefik}, konsultest.Last[*registryv1.QueryServiceRequest](gateway).GetTags())
	require.Zero(t, commandtest.Ctl(t, gateway, "", "service", "list", "--tag", tagOfTraefik).Code)
	require.Equal(t, []string{tagOfTraefik}, konsultest.Last[*registryv1.ListServicesRequest](gateway).GetTags())
}

func TestTablesShowWhereATagEndsAndWhoWatches(t *testing.T) {
	gateway := commandtest.Federation(t)
	konsultest.On(gateway, func(*registryv1.QueryServiceRequest) (*registryv1.QueryServiceResponse, error) {
		i := commandtest.Instance("us-west", "api-1", commandtest.Passing)
		i.Service.Tags, i.Unchecked = []string{"v1", tagOfTraefik}, true
		return &registryv1.QueryServiceResponse{Instances: []*registryv1.ServiceInstance{i}}, nil
	})
	out := commandtest.Ctl(t, gateway, "", "service", "get", "api").Stdout
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
			gateway := commandtest.Federation(t)
			r := commandtest.Ctl(t, gateway, "", append([]string{"service", "register", "--name", "six", "--port", "80"}, c.args...)...)
			require.Zero(t, r.Code, r.Stderr)
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
			r := commandtest.Ctl(t, commandtest.Federation(t), "", args...)
			require.Equal(t, 2, r.Code)
			require.Contains(t, r.Stderr, flag+": ")
			require.Contains(t, r.Stderr, "remedy: ")
		}
		r := commandtest.Ctl(t, commandtest.Federation(t), "", "node", "register", "n1", "--address", address)
		require.Equal(t, 2, r.Code)
		require.Contains(t, r.Stderr, "--address: ")
	}
}

func TestAnIDThatIsTakenNamesTheFlagsThatHelp(t *testing.T) {
	gateway := commandtest.Federation(t)
	line := []string{"service", "register", "--name", "api", "--id", "taken", "--address", "192.0.2.1"}
	r := commandtest.Ctl(t, gateway, "", line...)
	require.Equal(t, 1, r.Code)
	require.Contains(t, r.Stderr, `--id: "taken" is an instance of service web on node web-1, registered by agent`)
	require.Contains(t, r.Stderr, "--replace")
	r = commandtest.Ctl(t, gateway, "", append(line, "--replace")...)
	require.Zero(t, r.Code, r.Stderr)
	require.True(t, konsultest.Last[*registryv1.RegisterRequest](gateway).GetReplace())
}

func TestTTLMakesACheckAndSaysWhatKeepsItAlive(t *testing.T) {
	gateway := commandtest.Federation(t)
	r := commandtest.Ctl(t, gateway, "", "service", "register", "--name", "api", "--address", "192.0.2.1", "--ttl", "30s")
	require.Zero(t, r.Code, r.Stderr)
	check := konsultest.Last[*registryv1.RegisterRequest](gateway).GetChecks()[0]
	require.Equal(t, "ttl", check.GetId())
	require.Equal(t, commandtest.Passing, check.GetStatus())
	require.Equal(t, 30*time.Second, check.GetTtl().AsDuration())
	require.Contains(t, r.Stderr, "konsulctl check pass ttl --instance api")
	require.Contains(t, commandtest.Ctl(t, gateway, "", "service", "register", "--name", "api", "--address", "192.0.2.1").Stderr, "no checks")
}

func TestErrorsNameTheArgumentThatWasTyped(t *testing.T) {
	for line, says := range map[string]string{
		"service deregister ghost": "id: no service instance",
		"node get ghost":           "name: no node",
		"node deregister ghost":    "name: no node",
	} {
		r := commandtest.Ctl(t, commandtest.Federation(t), "", commandtest.AsArguments(line)...)
		require.Equal(t, 3, r.Code)
		require.Contains(t, r.Stderr, says)
	}
}
