package plan_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/servicedef"
	"konsul.dev/tools/lab/internal/plan"
)

func layout(t *testing.T, change func(*plan.Options)) plan.Layout {
	t.Helper()
	o := plan.Options{Dir: "/lab", Bin: "/bin", Network: "127.0.27", Processes: plan.Single}
	if change != nil {
		change(&o)
	}
	l, err := plan.New(o)
	require.NoError(t, err)
	return l
}

func TestEachDatacenterHasItsAddress(t *testing.T) {
	for name, c := range map[string]struct {
		network string
		urls    []string
	}{
		"an address each": {"127.0.27", []string{"https://127.0.27.1:8500", "https://127.0.27.2:8500", "https://127.0.27.3:8500"}},
		"one for all":     {"", []string{"https://127.0.0.1:8500", "https://127.0.0.1:18500", "https://127.0.0.1:28500"}},
	} {
		t.Run(name, func(t *testing.T) {
			var urls []string
			for _, dc := range layout(t, func(o *plan.Options) { o.Network = c.network }).Datacenters {
				urls = append(urls, dc.URL())
			}
			require.Equal(t, c.urls, urls)
		})
	}
}

func TestNothingIsBoundTwice(t *testing.T) {
	for _, processes := range []plan.Processes{plan.Single, plan.PerService} {
		for _, network := range []string{"127.0.27", ""} {
			seen := map[string]string{}
			for _, need := range layout(t, func(o *plan.Options) { o.Network, o.Processes = network, processes }).Needs() {
				key := need.Network + " " + need.Address
				require.Empty(t, seen[key], "%s and %s share %s", seen[key], need.Purpose, key)
				seen[key] = need.Purpose
			}
		}
	}
}

func TestTheProcessesOfADatacenter(t *testing.T) {
	for name, c := range map[string]struct {
		processes plan.Processes
		names     string
	}{
		"single":      {plan.Single, "payment-api api konsul-dc"},
		"per service": {plan.PerService, "payment-api api konsul-ca konsul-registry konsul-gateway konsul-wan-gossip konsul-replicator konsul-failover-router konsul-agent"},
	} {
		t.Run(name, func(t *testing.T) {
			l := layout(t, func(o *plan.Options) { o.Processes = c.processes })
			var names []string
			for _, spec := range l.Specs(l.Primary()) {
				names = append(names, spec.Name)
				require.True(t, strings.HasPrefix(filepath.Base(spec.Path), "konsul-"), "the lab knows its processes by this prefix")
				require.Positive(t, spec.Grace)
			}
			require.Equal(t, c.names, strings.Join(names, " "))
		})
	}
}

func TestOnlyRegistryAndCAGetTheDatacenterSecret(t *testing.T) {
	l := layout(t, func(o *plan.Options) { o.Processes = plan.PerService })
	dc := l.Primary()
	want := map[string]bool{}
	for _, h := range l.Keys(dc) {
		want["konsul-"+h.Component] = true
		require.Equal(t, h.Component == "agent", h.Node != "")
	}
	require.Len(t, want, 5)
	for _, spec := range l.Specs(dc) {
		component := strings.TrimPrefix(spec.Name, "konsul-")
		require.Equal(t, want[spec.Name], slices.Contains(spec.Args, "server.secret_file="+dc.KeyFile(component)), spec.Name)
	}
	require.Empty(t, layout(t, nil).Keys(dc), "one process has the secret, and needs no key")
}

func TestConfigurationsLoadStrictly(t *testing.T) {
	l := layout(t, func(o *plan.Options) { o.OTLPEndpoint = "127.0.0.1:4317" })
	for _, dc := range l.Datacenters {
		t.Run(dc.Name, func(t *testing.T) {
			cfg := load(t, l, dc)
			require.NoError(t, cfg.Validate())
			require.Equal(t, dc.Name, cfg.Server.Datacenter)
			require.Equal(t, "us-east", cfg.Server.PrimaryDatacenter)
			require.Equal(t, []string{dc.Host + ":8502"}, cfg.Endpoints.Registry)
			require.True(t, cfg.Telemetry.OTLPInsecure)
			if dc.Primary {
				require.Equal(t, []string{"127.0.27.2:8302", "127.0.27.3:8302"}, cfg.Server.WAN.Members)
				require.Empty(t, cfg.Server.WAN.Join)
				return
			}
			require.Equal(t, []string{"127.0.27.1:8302"}, cfg.Server.WAN.Join)
			require.Empty(t, cfg.Server.WAN.Members)
		})
	}
}

func load(t *testing.T, l plan.Layout, dc plan.Datacenter) config.Base {
	t.Helper()
	text, err := l.Config(dc)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "konsul.yaml")
	write(t, path, text)
	cfg := struct {
		config.Base `koanf:",squash"`
	}{config.DefaultBase()}
	require.NoError(t, config.Load(&cfg, config.Options{Files: []string{path}}))
	cfg.Normalize()
	return cfg.Base
}

func TestSharedAddressesMoveEveryPort(t *testing.T) {
	l := layout(t, func(o *plan.Options) { o.Network = "" })
	cfg := load(t, l, l.Datacenters[1])
	require.NoError(t, cfg.Validate())
	require.Equal(t, []string{"127.0.0.1:18502"}, cfg.Endpoints.Registry)
	require.Equal(t, []string{"127.0.0.1:18443"}, cfg.Endpoints.Gateway)
	require.Equal(t, "127.0.0.1:18302", cfg.Server.WAN.BindAddr)
	require.Equal(t, []string{"127.0.0.1:8302"}, cfg.Server.WAN.Join)
}

func TestDefinitionsAreTheAgents(t *testing.T) {
	l := layout(t, nil)
	for _, dc := range l.Datacenters {
		files, err := l.Definitions(dc)
		require.NoError(t, err)
		require.Len(t, files, len(plan.SampleNames()))
		for _, name := range plan.SampleNames() {
			definitions, err := servicedef.Parse(files[name+".yaml"])
			require.NoError(t, err)
			require.Len(t, definitions, 1)
			definition := definitions[0]
			require.NoError(t, definition.CheckDatacenter(dc.Name))
			require.Equal(t, dc.Host, definition.Address)
			require.Len(t, definition.Checks, 1)
			wantPolicy := dc.Primary && name == "payment-api"
			require.Equal(t, wantPolicy, len(definition.Failover) > 0)
		}
	}
}

func TestBadChoicesAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*plan.Options)
		says   string
	}{
		"processes":          {func(o *plan.Options) { o.Processes = "many" }, "--processes"},
		"a foreign network":  {func(o *plan.Options) { o.Network = "10.0.0" }, "--network"},
		"four octets":        {func(o *plan.Options) { o.Network = "127.0.0.1" }, "--network"},
		"an octet above 255": {func(o *plan.Options) { o.Network = "127.0.999" }, "--network"},
	} {
		t.Run(name, func(t *testing.T) {
			o := plan.Options{Network: "127.0.27", Processes: plan.Single}
			c.change(&o)
			_, err := plan.New(o)
			require.ErrorContains(t, err, c.says)
		})
	}
}

func TestAnUnknownDatacenterIsNamed(t *testing.T) {
	_, err := layout(t, nil).Find("mars")
	require.ErrorContains(t, err, "mars")
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, text, 0o600))
}
