package compose

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/servicedef"
	"konsul.dev/tools/lab/internal/plan"
)

// folderOfCompose is compose/ in the repository.
const folderOfCompose = "../../../../compose"

type file struct {
	Services map[string]struct {
		Networks map[string]struct {
			Address string `yaml:"ipv4_address"`
			Aliases []string
		}
		Volumes     []string
		Ports       []string
		ReadOnly    bool `yaml:"read_only"`
		Labels      map[string]string
		Environment map[string]string
		DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
	}
	Networks map[string]struct{ Internal bool }
	Volumes  map[string]any
}

func read(t *testing.T) file {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folderOfCompose, "docker-compose.yml"))
	require.NoError(t, err)
	var f file
	require.NoError(t, yaml.Unmarshal(text, &f))
	return f
}

func TestTheFileHoldsTheLabsServicesAndNoOthers(t *testing.T) {
	f := read(t)
	var want []string
	for _, dc := range datacenters() {
		want = append(want, dc.services()...)
	}
	var got []string
	for name := range f.Services {
		got = append(got, name)
	}
	require.ElementsMatch(t, want, got)
}

func TestOnlyTheDoorsAreOnTheWAN(t *testing.T) {
	f := read(t)
	for name, service := range f.Services {
		i := slices.IndexFunc(datacenters(), func(dc datacenter) bool { return strings.HasPrefix(name, dc.name+"-") })
		require.GreaterOrEqual(t, i, 0, name)
		dc := datacenters()[i]
		require.True(t, service.ReadOnly, name)
		require.Equal(t, dc.name, service.Labels["konsul.datacenter"], name)
		for network := range service.Networks {
			switch network {
			case dc.name:
			case "wan":
				doors := []string{dc.name + "-gateway", dc.name + "-wan-gossip"}
				if i > 0 {
					doors = append(doors, dc.name+"-ca")
				}
				require.Contains(t, doors, name)
				require.Equal(t, "true", service.Labels["konsul.wan"], name)
				require.Equal(t, service.Labels["konsul.wan-address"], service.Networks["wan"].Address, name)
			case dc.name + "-edge":
				require.NotEmpty(t, service.Ports, name)
			default:
				t.Errorf("%s is on the network %s of another datacenter", name, network)
			}
		}
		for _, port := range service.Ports {
			require.True(t, strings.HasPrefix(port, "127.0.0.1:"), "%s publishes %s beyond this machine", name, port)
		}
	}
	for name, network := range f.Networks {
		require.Equal(t, !strings.HasSuffix(name, "-edge"), network.Internal, name)
	}
}

func TestPublishedPortsAreTheOnesTheLabAsks(t *testing.T) {
	f := read(t)
	for _, dc := range datacenters() {
		require.Len(t, f.Services[dc.name+"-gateway"].Ports, 1)
		require.Contains(t, f.Services[dc.name+"-gateway"].Ports[0], ":-"+dc.port+"}:8500")
		plain := New(Options{Lookup: func(string) string { return "" }})
		require.Equal(t, "https://127.0.0.1:"+dc.port, plain.url(dc))
	}
	moved := New(Options{Lookup: func(name string) string {
		return map[string]string{"KONSUL_EU_CENTRAL_HTTP_PORT": "9999"}[name]
	}})
	require.Equal(t, "https://127.0.0.1:9999", moved.url(datacenters()[2]))
}

// TestEndpointsAreNamesOfOneNetwork guards against names that several networks answer: a service of
// two networks listens on one of them.
func TestEndpointsAreNamesOfOneNetwork(t *testing.T) {
	f := read(t)
	for _, dc := range names() {
		aliases := map[string]bool{}
		for _, service := range f.Services {
			for _, alias := range service.Networks[dc].Aliases {
				aliases[alias] = true
			}
		}
		e := load(t, dc).Endpoints
		for _, addresses := range [][]string{e.CA, e.Registry, e.Gateway, e.WANGossip, e.Replicator, e.FailoverRouter} {
			for _, address := range addresses {
				host, _, err := net.SplitHostPort(address)
				require.NoError(t, err)
				require.True(t, aliases[host], "%s is no alias on the network %s", host, dc)
			}
		}
	}
}

func load(t *testing.T, dc string) config.Base {
	t.Helper()
	cfg := struct {
		config.Base `koanf:",squash"`
	}{config.DefaultBase()}
	require.NoError(t, config.Load(&cfg, config.Options{Files: []string{filepath.Join(folderOfCompose, dc, "konsul.yaml")}}))
	cfg.Normalize()
	return cfg.Base
}

func TestConfigurationsLoadStrictly(t *testing.T) {
	for _, dc := range names() {
		t.Run(dc, func(t *testing.T) {
			cfg := load(t, dc)
			require.NoError(t, cfg.Validate())
			require.Equal(t, dc, cfg.Server.Datacenter)
			paths, err := filepath.Glob(filepath.Join(folderOfCompose, dc, "services", "*.yaml"))
			require.NoError(t, err)
			require.Len(t, paths, 2)
			for _, path := range paths {
				definition, err := servicedef.Load(path)
				require.NoError(t, err)
				require.NoError(t, definition.CheckDatacenter(dc))
			}
		})
	}
}

func TestSecretsAreBehindAClosedFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	l := New(Options{Dir: dir})
	require.NoError(t, l.writeSecrets())
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	for _, dc := range names() {
		for _, component := range components() {
			text, err := os.ReadFile(l.secretFile(dc, component))
			require.NoError(t, err)
			credential, err := identity.ParseCredential(component, string(text))
			require.NoError(t, err)
			holdsSecret := component == "ca" || component == "registry"
			require.Equal(t, holdsSecret, credential.IsSecret(), "%s of %s", component, dc)
			info, err := os.Stat(l.secretFile(dc, component))
			require.NoError(t, err)
			require.Zero(t, info.Mode().Perm()&0o007, "%s: others of the machine cannot read it", l.secretFile(dc, component))
			require.Equal(t, os.FileMode(0o040), info.Mode().Perm()&0o070, "the container's group can")
		}
	}
	require.FileExists(t, l.tokenFile())
	require.NoError(t, l.removeFiles())
	require.NoDirExists(t, dir)
}

func TestAContainerSeesItsOwnSecretsAlone(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(folderOfCompose, "docker-compose.yml"))
	require.NoError(t, err)
	var content struct {
		Services map[string]struct {
			Volumes  []string `yaml:"volumes"`
			GroupAdd []string `yaml:"group_add"`
		} `yaml:"services"`
	}
	require.NoError(t, yaml.Unmarshal(text, &content))
	for _, dc := range datacenters() {
		for _, component := range components() {
			service, ok := content.Services[dc.name+"-"+component]
			require.True(t, ok, component)
			require.Equal(t, []string{"${KONSUL_LAB_GID:-65532}"}, service.GroupAdd)
			var mounts []string
			for _, volume := range service.Volumes {
				if strings.HasSuffix(volume, ":/run/konsul:ro") {
					mounts = append(mounts, volume)
				}
			}
			require.Len(t, mounts, 1)
			require.True(t, strings.HasSuffix(mounts[0], "}/"+dc.name+"/"+component+":/run/konsul:ro"), mounts[0])
		}
	}
}

func TestSubnetsAreFree(t *testing.T) {
	for name, c := range map[string]struct{ networks, want string }{
		"an empty engine":          {"bridge 172.17.0.0/16\nhost \nnone \n", "10.203"},
		"another lab runs":         {"other_wan 10.203.0.0/24\nother_us-east 10.203.1.0/24\n", "10.204"},
		"a network could not go":   {"other_wan 10.203.0.0/24\nkonsul_us-east 10.204.1.0/24\n", "10.204"},
		"a project of a like name": {"konsul-e2e_wan 10.203.0.0/24\n", "10.204"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := pickNet(c.networks, "konsul")
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
	var full strings.Builder
	for n := firstNet; n <= lastNet; n++ {
		fmt.Fprintf(&full, "n%d 10.%d.0.0/16\n", n, n)
	}
	_, err := pickNet(full.String(), "konsul")
	require.ErrorContains(t, err, "KONSUL_NET")
}

func TestAnUnknownDatacenterIsNamed(t *testing.T) {
	require.ErrorContains(t, New(Options{}).Cut(t.Context(), "mars"), "mars")
}

// A component whose ca or registry is not there yet would only wait for it; started by health,
// nobody looks up a name that is not on the network yet.
func TestComponentsStartWhenWhatTheyNeedIsHealthy(t *testing.T) {
	f := read(t)
	for _, dc := range datacenters() {
		for _, name := range dc.services() {
			kind := strings.TrimPrefix(name, dc.name+"-")
			needs := dc.name + "-registry"
			switch {
			case kind == "registry":
				needs = dc.name + "-ca"
			case kind == "ca", slices.Contains(plan.SampleNames(), kind):
				require.Empty(t, f.Services[name].DependsOn, name)
				continue
			}
			require.Equal(t, "service_healthy", f.Services[name].DependsOn[needs].Condition, "%s waits for %s", name, needs)
		}
	}
}
