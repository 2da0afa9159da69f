package config_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
)

type sample struct {
	config.Base `koanf:",squash"`
	Registry    struct {
		Listen  string        `koanf:"listen"`
		Timeout time.Duration `koanf:"timeout"`
		Peers   []string      `koanf:"peers"`
		Limit   uint16        `koanf:"limit"`
		Share   float64       `koanf:"share"`
		On      *bool         `koanf:"on"`
		Raft    struct {
			Size int `koanf:"size"`
		} `koanf:"raft"`
	} `koanf:"registry"`
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "konsul.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func load(t *testing.T, text string, environ, sets []string) (sample, error) {
	t.Helper()
	cfg := sample{Base: config.DefaultBase()}
	cfg.Registry.Timeout = time.Second
	err := config.Load(&cfg, config.Options{
		Files: []string{write(t, text)}, Environ: environ, Sets: sets,
		Aliases: map[string]string{"DATACENTER": "server.datacenter"},
	})
	return cfg, err
}

func TestLaterSourcesWin(t *testing.T) {
	cfg, err := load(t, "server: {datacenter: a, node: n}\nregistry: {listen: 'x:1', peers: [p, q]}\n",
		[]string{"KONSUL_SERVER__DATACENTER=b", "KONSUL_ADDR=https://ignored"}, []string{"registry.timeout=3s", "server.data_dir=/d"})
	require.NoError(t, err)
	require.Equal(t, "b", cfg.Server.Datacenter)
	require.Equal(t, "n", cfg.Server.Node)
	require.Equal(t, 3*time.Second, cfg.Registry.Timeout)
	require.Equal(t, []string{"p", "q"}, cfg.Registry.Peers)
	require.Equal(t, "/d", cfg.Server.DataDir)
	require.Equal(t, "127.0.0.1", cfg.Server.BindAddr, "defaults stay where nobody speaks")
}

func TestTheADRsYAMLLoads(t *testing.T) {
	cfg, err := load(t, `
server:
  datacenter: us-east
  primary_datacenter: us-east
  wan:
    enabled: true
    bind_addr: "0.0.0.0:8302"
    advertise_addr: "konsul-us-east.example.com:8302"
    members:
      - "konsul-us-west.example.com:8302"
`, nil, nil)
	require.NoError(t, err)
	require.Equal(t, []string{"konsul-us-west.example.com:8302"}, cfg.Server.WAN.Members)
}

func TestUnknownKeysAreNamedAllAtOnce(t *testing.T) {
	_, err := load(t, "server: {datacentre: a}\nregistry: {lisen: x}\nregistri: {}\n", nil, []string{"registry.typo=1"})
	for _, key := range []string{"server.datacentre", "registry.lisen", "registri", "registry.typo"} {
		require.ErrorContains(t, err, key)
	}
}

func TestAValueOfTheWrongKindIsNamedInWordsOfTheFile(t *testing.T) {
	machine := regexp.MustCompile(`strconv|unmarshal|!!|interface|unconvertible|mapstructure|time: |uint16|yaml:`)
	for text, want := range map[string]struct{ field, says string }{
		"server: {datacenter: [a]}":                      {"server.datacenter", "is a list, and no text"},
		"registry: {timeout: soon}":                      {"registry.timeout", `"soon" is no duration`},
		"registry: {timeout: {a: b}}":                    {"registry.timeout", "is a mapping, and no duration"},
		"registry: {limit: many}":                        {"registry.limit", `"many" is no whole number`},
		"registry: {limit: -1}":                          {"registry.limit", `"-1" is no whole number`},
		"registry: {limit: 70000}":                       {"registry.limit", `"70000" is no whole number`},
		"registry: {share: half}":                        {"registry.share", `"half" is no number`},
		"registry: {on: maybe}":                          {"registry.on", `"maybe" is no switch`},
		"registry: {raft: {size: big}}":                  {"registry.raft.size", `"big" is no whole number`},
		"registry: {limit: 0x10000}":                     {"registry.limit", `"65536" is no whole number`},
		"registry: {raft: {size: 99999999999999999999}}": {"registry.raft.size", "is no whole number"},
		"registry: {limit: .nan}":                        {"registry.limit", "is no whole number"},
		"registry: {limit: .inf}":                        {"registry.limit", "is no whole number"},
		"registry: {timeout: 10}":                        {"registry.timeout", `"10" is no duration`},
		"registry: {raft: 7}":                            {"registry.raft", `"7" is no mapping`},
		"registry: {peers: {a: b}, raft: {size: 1.5}}":   {"registry.peers", "is a mapping, and no list"},
		"registry: [a]":                                  {"registry", "is a list, and no mapping"},
		"- registry":                                     {"--config", "no mapping of sections"},
		"registry":                                       {"--config", "no mapping of sections"},
		"registry: [":                                    {"--config", "line 1"},
	} {
		t.Run(text, func(t *testing.T) {
			_, err := load(t, text, nil, nil)
			require.Error(t, err)
			require.NotRegexp(t, machine, err.Error())
			f, ok := fault.As(err)
			require.True(t, ok)
			require.Equal(t, want.field, f.Field(), err.Error())
			require.Contains(t, f.Message(), want.says)
			require.NotEmpty(t, f.Remedy())
		})
	}
	_, err := load(t, "", []string{"KONSUL_REGISTRY__LIMIT=x"}, []string{"registry.timeout=y"})
	require.ErrorContains(t, err, `registry.limit: "x" is no whole number`)
	require.ErrorContains(t, err, `registry.timeout: "y" is no duration`)
	cfg, err := load(t, "registry: {timeout: 0, limit: 65535, share: 1, raft: {size: -1.0}}", nil, nil)
	require.NoError(t, err)
	require.EqualValues(t, 65535, cfg.Registry.Limit)
	require.Equal(t, -1, cfg.Registry.Raft.Size)
}

func TestSiblingSectionsAreLeftAlone(t *testing.T) {
	_, err := load(t, "gateway: {listen: 'x:1'}\n", nil, nil)
	require.NoError(t, err)
}

func TestAliasesFillTheirKey(t *testing.T) {
	cfg, err := load(t, "{}", []string{"DATACENTER=us-west"}, nil)
	require.NoError(t, err)
	require.Equal(t, "us-west", cfg.Server.Datacenter)
}

func TestValidateReportsEveryProblem(t *testing.T) {
	base := config.DefaultBase()
	base.Server.Datacenter = "US East"
	base.Endpoints.Registry = []string{"nowhere"}
	base.Normalize()
	err := base.Validate()
	require.ErrorContains(t, err, "server.datacenter")
	require.ErrorContains(t, err, "server.secret_file")
	require.ErrorContains(t, err, "endpoints.registry[0]")
}

func TestLimitsAreCheckedByName(t *testing.T) {
	base := config.DefaultBase()
	base.Server.Limits = config.Limits{}
	base.Normalize()
	err := base.Validate()
	for _, field := range []string{
		"max_connections", "max_concurrent_streams", "max_carried_streams", "max_inflight_bytes", "request_read_timeout",
	} {
		require.ErrorContains(t, err, "server.limits."+field)
	}
}

func TestEndpointsFollowTheBindAddress(t *testing.T) {
	base := config.DefaultBase()
	base.Server.BindAddr = "0.0.0.0"
	base.Normalize()
	require.Equal(t, []string{"127.0.0.1:8502"}, base.Endpoints.Registry)
	require.Equal(t, "0.0.0.0:8302", base.Server.WAN.BindAddr)
}

func FuzzLoad(f *testing.F) {
	f.Add("server: {datacenter: a}", "server.node=b")
	f.Add("[]", "=")
	f.Fuzz(func(t *testing.T, text, set string) {
		cfg := sample{Base: config.DefaultBase()}
		_ = config.Load(&cfg, config.Options{Files: []string{write(t, text)}, Sets: []string{set}})
	})
}
