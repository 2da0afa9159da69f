package gateway_test

import (
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/fx"
	"go.uber.org/fx/fxtest"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/ops"
	"konsul.dev/services/gateway"
)

func load(t *testing.T, environ []string, sets ...string) (gateway.Config, error) {
	t.Helper()
	cfg := gateway.DefaultConfig()
	sets = append([]string{"server.datacenter=us-east", "server.secret_file=s", "server.data_dir=d"}, sets...)
	err := config.LoadService(&cfg, config.Options{Environ: append([]string{"X=y"}, environ...), Sets: sets})
	return cfg, err
}

func TestDefaultsFollowTheDatacenter(t *testing.T) {
	cfg, err := load(t, nil, "server.bind_addr=10.0.0.5", "server.wan.advertise_addr=wan.example.com:8302")
	require.NoError(t, err)
	require.Equal(t, "10.0.0.5:8443", cfg.Gateway.Listen)
	require.Equal(t, "10.0.0.5:8500", cfg.Gateway.HTTPListen)
	require.Equal(t, "wan.example.com:8443", cfg.Gateway.WANAddress)
}

func TestTheADRsEnvironmentIsUnderstood(t *testing.T) {
	cfg := gateway.DefaultConfig()
	require.NoError(t, config.LoadService(&cfg, config.Options{
		Environ: []string{"DATACENTER=us-east", "WAN_ADDRESS=mesh-gateway.us-east.example.com:8443", "TLS_ENABLED=true"},
		Sets:    []string{"server.secret_file=s"},
	}))
	require.Equal(t, "us-east", cfg.Server.Datacenter)
	require.Equal(t, "mesh-gateway.us-east.example.com:8443", cfg.Gateway.WANAddress)

	_, err := load(t, []string{"TLS_ENABLED=false"})
	require.ErrorContains(t, err, "gateway.tls_enabled: there is no plaintext mode")
}

func TestBadSettingsAreNamed(t *testing.T) {
	for field, value := range map[string]string{
		"listen": "8443", "http_listen": "nowhere", "wan_address": "x", "tls_enabled": "false", "http_sans": "[https://a]",
		"handshake_timeout": "0s", "dial_timeout": "-1s", "idle_timeout": "0s", "max_connections": "0", "half_close_timeout": "0s",
		"max_connections_per_source": "-1", "max_half_open": "0", "max_half_open_per_source": "0", "drain_timeout": "-1s",
		"introspect_cache_ttl": "1m", "max_request_bytes": "10", "tls_enable": "true",
		"max_inflight_bytes": "1000", "request_read_timeout": "0s", "max_concurrent_streams": "0", "max_header_bytes": "100",
	} {
		t.Run(field, func(t *testing.T) {
			_, err := load(t, nil, "gateway."+field+"="+value)
			require.ErrorContains(t, err, "gateway."+field)
		})
	}
}

func TestTheExampleLoads(t *testing.T) {
	cfg := gateway.DefaultConfig()
	require.NoError(t, config.LoadService(&cfg, config.Options{Files: []string{"config.example.yaml"}, Environ: []string{"X=y"}}))
	want := gateway.DefaultConfig().Gateway
	require.Equal(t, want.IdleTimeout, cfg.Gateway.IdleTimeout)
	require.Equal(t, want.MaxRequestBytes, cfg.Gateway.MaxRequestBytes)
}

func TestATakenPortIsNamed(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	ca := identitytest.NewCA(t, identitytest.FederationID)
	for _, field := range []string{"listen", "http_listen"} {
		cfg, err := load(t, nil, "gateway.listen=127.0.0.1:0", "gateway.http_listen=127.0.0.1:0", "gateway."+field+"="+taken.Addr().String())
		require.NoError(t, err)
		service, err := gateway.New(cfg, gateway.Deps{Process: konsulfx.Process{Telemetry: obs.Discard(), Identity: ca.Source("us-east", "gateway"), Fail: func(error) {}}})
		require.NoError(t, err)
		require.ErrorContains(t, service.Start(t.Context()), "gateway."+field+": cannot listen on "+taken.Addr().String())
	}
}

// keepIdentity leaves an identity where an earlier run of the gateway would have.
func keepIdentity(t *testing.T, ca *identitytest.CA, dataDir string) {
	t.Helper()
	m := ca.Material(identity.ID{FederationID: identitytest.FederationID, Datacenter: "us-east", Kind: identity.KindService, Service: "gateway"}, "us-east")
	key, err := x509.MarshalPKCS8PrivateKey(m.Key)
	require.NoError(t, err)
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	for _, c := range m.Chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	for _, c := range m.Roots {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "TRUSTED CERTIFICATE", Bytes: c.Raw})...)
	}
	require.NoError(t, identity.WriteFile(filepath.Join(dataDir, "gateway", "identity.pem"), text))
}

func TestGraph(t *testing.T) {
	cfg := gateway.DefaultConfig()
	cfg.Server.Datacenter = "us-east"
	cfg.Server.DataDir = t.TempDir()
	cfg.Server.SecretFile = filepath.Join(cfg.Server.DataDir, "secret")
	cfg.Gateway.Listen, cfg.Gateway.HTTPListen = "127.0.0.1:0", "127.0.0.1:0"
	cfg.Normalize()
	app := func() *fxtest.App {
		return fxtest.New(t, konsulfx.Base("konsul-gateway", cfg.Base), gateway.Module(cfg), fx.NopLogger)
	}
	require.ErrorContains(t, app().Start(t.Context()), "secret_file", "without a secret it says so")

	require.NoError(t, os.WriteFile(cfg.Server.SecretFile, []byte("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="), 0o600))
	keepIdentity(t, identitytest.NewCA(t, identitytest.FederationID), cfg.Server.DataDir)
	running := app().RequireStart()
	require.NoError(t, ops.Probe(t.Context(), cfg.Server.DataDir, "konsul-gateway"))
	running.RequireStop()
}
