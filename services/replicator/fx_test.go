package replicator_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/fx"
	"go.uber.org/fx/fxtest"

	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/services/replicator"
)

// keep stores an identity as an earlier enrolment left it, so that no ca is needed.
func keep(t *testing.T, dir string, m identity.Material) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(m.Key)
	require.NoError(t, err)
	var text bytes.Buffer
	require.NoError(t, pem.Encode(&text, &pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	for _, c := range m.Chain {
		require.NoError(t, pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	for _, c := range m.Roots {
		require.NoError(t, pem.Encode(&text, &pem.Block{Type: "TRUSTED CERTIFICATE", Bytes: c.Raw}))
	}
	require.NoError(t, os.MkdirAll(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "identity.pem"), text.Bytes(), 0o600))
}

func TestGraph(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	cfg := replicator.DefaultConfig()
	cfg.Server.Datacenter, cfg.Server.PrimaryDatacenter, cfg.Server.DataDir = west, east, dir
	cfg.Server.SecretFile = filepath.Join(dir, "secret")
	require.NoError(t, os.WriteFile(cfg.Server.SecretFile, []byte(identity.NewSecret()), 0o600))
	cfg.Endpoints.Registry, cfg.Endpoints.Gateway = []string{w.copy.Addr()}, []string{w.primary.Addr()}
	cfg.Replicator.Listen = "127.0.0.1:0"
	cfg.Normalize()
	keep(t, filepath.Join(dir, replicator.Name), w.ca.Source(west, replicator.Name).Material())
	w.primary.Commit(kv("a", "1"))

	options := fx.Options(konsulfx.Base("konsul-replicator", cfg.Base), replicator.Module(cfg))
	require.NoError(t, fx.ValidateApp(options))
	app := fxtest.New(t, options)
	app.RequireStart()
	eventually(t, "copied", func() bool { return w.copy.Value("global/a") == "1" })
	app.RequireStop()
}
