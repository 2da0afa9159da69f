package failoverrouter_test

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/fx"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/ops"
	failoverrouter "konsul.dev/services/failover-router"
)

// keepIdentity writes an identity where an earlier life of the service would have left it.
func (w *world) keepIdentity(t *testing.T, cfg failoverrouter.Config) {
	t.Helper()
	material := w.ca.Source(cfg.Server.Datacenter, failoverrouter.Name).Material()
	key, err := x509.MarshalPKCS8PrivateKey(material.Key)
	require.NoError(t, err)
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	for _, c := range material.Chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	for _, c := range material.Roots {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "TRUSTED CERTIFICATE", Bytes: c.Raw})...)
	}
	dir := filepath.Join(cfg.Server.DataDir, failoverrouter.Name)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "identity.pem"), text, 0o600))
}

func TestGraph(t *testing.T) {
	w := newWorld(t)
	cfg := w.config(t)
	cfg.Telemetry.LogLevel = "error"
	w.keepIdentity(t, cfg)
	options := fx.Options(konsulfx.Base("konsul-failover-router", cfg.Base), failoverrouter.Module(cfg))
	cfg.Normalize()
	require.NoError(t, fx.ValidateApp(options))
	app := fx.New(options)
	require.NoError(t, app.Start(t.Context()))
	require.NoError(t, ops.Probe(t.Context(), cfg.Server.DataDir, "konsul-failover-router"))
	require.NoError(t, app.Stop(t.Context()))
}

func TestExampleIsValid(t *testing.T) {
	cfg := failoverrouter.DefaultConfig()
	require.NoError(t, config.LoadService(&cfg, config.Options{Files: []string{"config.example.yaml"}, Environ: []string{}}))
}

func load(t *testing.T, text string) (failoverrouter.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "konsul.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	cfg := failoverrouter.DefaultConfig()
	err := config.LoadService(&cfg, config.Options{Files: []string{path}, Environ: []string{}})
	return cfg, err
}

func TestEveryProblemIsReported(t *testing.T) {
	_, err := load(t, `
server: {datacenter: us-east, secret_file: s}
failover_router: {listen: nowhere, proxy_listen: "0.0.0.0:8553", remote_timeout: 0s, lease: -1s, max_retries: 11}
`)
	for _, field := range []string{"listen", "proxy_listen", "remote_timeout", "lease", "max_retries"} {
		require.ErrorContains(t, err, "failover_router."+field)
	}
}

func TestTheProxyStaysOnLoopbackUnlessTold(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"loopback": {`{}`, "127.0.0.1:8553"},
		"everywhere else it is of this host only": {`{bind_addr: 0.0.0.0, wan: {advertise_addr: "a:1"}}`, "127.0.0.1:8553"},
		"a loopback address of its own":           {`{bind_addr: 127.83.7.2}`, "127.83.7.2:8553"},
	} {
		cfg, _ := load(t, "server: "+c.text)
		require.Equal(t, c.want, cfg.FailoverRouter.ProxyListen, name)
	}
	cfg, err := load(t, `
server: {datacenter: us-east, secret_file: s, bind_addr: 0.0.0.0}
failover_router: {proxy_allow_remote: true}
`)
	require.NoError(t, err)
	require.Equal(t, "0.0.0.0:8553", cfg.FailoverRouter.ProxyListen)
}
