package registry_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/fx"
	"go.uber.org/goleak"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/konsultest"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/ops"
	"konsul.dev/services/registry"
	"konsul.dev/services/registry/registrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func graphConfig(t *testing.T) registry.Config {
	t.Helper()
	cfg := registry.DefaultConfig()
	cfg.Server.Datacenter, cfg.Server.Node, cfg.Server.DataDir = "dc1", "n1", t.TempDir()
	cfg.Server.SecretFile = filepath.Join(cfg.Server.DataDir, "secret")
	require.NoError(t, os.WriteFile(cfg.Server.SecretFile, []byte("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"), 0o600))
	cfg.Registry.Listen, cfg.Registry.RaftListen = konsultest.FreeAddress(t), konsultest.FreeAddress(t)
	cfg.Telemetry.LogLevel = "error"
	cfg.Normalize()
	require.NoError(t, cfg.Validate())
	return cfg
}

// keepIdentity writes an identity where an earlier life of the service would have left it.
func keepIdentity(t *testing.T, cfg registry.Config) {
	t.Helper()
	material := identitytest.NewCA(t, identitytest.FederationID).Source(cfg.Server.Datacenter, registry.Name).Material()
	key, err := x509.MarshalPKCS8PrivateKey(material.Key)
	require.NoError(t, err)
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	for _, c := range material.Chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	for _, c := range material.Roots {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "TRUSTED CERTIFICATE", Bytes: c.Raw})...)
	}
	dir := filepath.Join(cfg.Server.DataDir, registry.Name)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "identity.pem"), text, 0o600))
}

func TestGraph(t *testing.T) {
	cfg := graphConfig(t)
	keepIdentity(t, cfg)
	options := fx.Options(konsulfx.Base("konsul-registry", cfg.Base), registry.Module(cfg))
	require.NoError(t, fx.ValidateApp(options))
	app := fx.New(options)
	require.NoError(t, app.Start(t.Context()))
	registrytest.Eventually(t, func() error { return ops.Probe(t.Context(), cfg.Server.DataDir, "konsul-registry") })
	require.NoError(t, app.Stop(t.Context()))
}

func TestAStartThatFailsUndoesItself(t *testing.T) {
	cfg := graphConfig(t)
	keepIdentity(t, cfg)
	taken, err := net.Listen("tcp", cfg.Registry.Listen)
	require.NoError(t, err)
	service, err := registry.New(cfg, registry.Deps{Telemetry: obs.Discard(), Clock: clock.System()})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err = service.Start(ctx)
	f, ok := fault.As(err)
	require.True(t, ok, "%v", err)
	require.Equal(t, "registry.listen", f.Field())
	require.NotEmpty(t, f.Remedy())

	require.NoError(t, taken.Close())
	service, err = registry.New(cfg, registry.Deps{Telemetry: obs.Discard(), Clock: clock.System()})
	require.NoError(t, err)
	require.NoError(t, service.Start(ctx), "everything was given back")
	require.NoError(t, service.Stop(ctx))
}
