package wangossip_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/fx"
	"google.golang.org/grpc"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/config"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/ops"
	"konsul.dev/pkg/rpc"
	wangossip "konsul.dev/services/wan-gossip"
)

func (w *world) dial(t *testing.T, addr, wantDC, dc, service string) *grpc.ClientConn {
	t.Helper()
	conn, err := rpc.Dial([]string{addr}, rpc.ClientParams{
		Identity: w.ca.Source(dc, service), Want: identity.Want{Datacenter: wantDC, Service: "wan-gossip"}, Telemetry: obs.Discard(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// keepIdentity writes an identity where an earlier life of the service would have left it.
func (w *world) keepIdentity(t *testing.T, cfg wangossip.Config) {
	t.Helper()
	material := w.ca.Source(cfg.Server.Datacenter, wangossip.Name).Material()
	key, err := x509.MarshalPKCS8PrivateKey(material.Key)
	require.NoError(t, err)
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	for _, c := range material.Chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	for _, c := range material.Roots {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "TRUSTED CERTIFICATE", Bytes: c.Raw})...)
	}
	dir := filepath.Join(cfg.Server.DataDir, wangossip.Name)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "identity.pem"), text, 0o600))
}

func TestGraph(t *testing.T) {
	w := newWorld(t, identitytest.FederationID)
	cfg := w.config(t, "us-east")
	cfg.Telemetry.LogLevel = "error"
	w.keepIdentity(t, cfg)
	options := fx.Options(konsulfx.Base("konsul-wan-gossip", cfg.Base), wangossip.Module(cfg))
	require.NoError(t, fx.ValidateApp(options))
	app := fx.New(options)
	require.NoError(t, app.Start(t.Context()))
	require.NoError(t, ops.Probe(t.Context(), cfg.Server.DataDir, "konsul-wan-gossip"))
	require.NoError(t, app.Stop(t.Context()))
}

func TestAStartThatFailsUndoesItself(t *testing.T) {
	w := newWorld(t, identitytest.FederationID)
	cfg := w.config(t, "us-east")
	cfg.Endpoints.CA = []string{"127.0.0.1:1"}
	service, err := wangossip.New(cfg, wangossip.Deps{Process: konsulfx.Process{
		Telemetry: obs.Discard(), Clock: clock.System(), Fail: func(err error) { t.Errorf("a loop failed: %v", err) },
	}})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	require.ErrorContains(t, service.Start(ctx), "enroll")
}

func TestExampleIsValid(t *testing.T) {
	cfg := wangossip.DefaultConfig()
	require.NoError(t, config.LoadService(&cfg, config.Options{Files: []string{"config.example.yaml"}, Environ: []string{}}))
}

func TestEveryProblemIsReported(t *testing.T) {
	path := filepath.Join(t.TempDir(), "konsul.yaml")
	require.NoError(t, os.WriteFile(path, []byte(`
server: {datacenter: us-east, secret_file: s, wan: {bind_addr: "0.0.0.0:8302"}}
wan_gossip: {listen: nowhere, probe_interval: 0s, detection: {probe_timeout: 5s}}
`), 0o600))
	cfg := wangossip.DefaultConfig()
	err := config.LoadService(&cfg, config.Options{Files: []string{path}, Environ: []string{}})
	for _, field := range []string{
		"wan_gossip.listen", "wan_gossip.probe_interval", "wan_gossip.detection.probe_timeout", "server.wan.advertise_addr",
	} {
		require.ErrorContains(t, err, field)
	}
}
