package agent_test

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
	"konsul.dev/services/agent"
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
	w.define(t, "a.yaml", "service: {name: a}")
	cfg := w.config(t)
	cfg.Server.SecretFile = filepath.Join(cfg.Server.DataDir, "secret")
	require.NoError(t, os.WriteFile(cfg.Server.SecretFile, []byte(identity.NewSecret()), 0o600))
	cfg.Normalize()
	keep(t, filepath.Join(cfg.Server.DataDir, agent.Name), w.ca.Source(dc, agent.Name).Material())

	options := fx.Options(konsulfx.Base("konsul-agent", cfg.Base), agent.Module(cfg))
	require.NoError(t, fx.ValidateApp(options))
	app := fxtest.New(t, options)
	app.RequireStart()
	eventually(t, "registered", func() bool { return w.registry.Service("a") != nil })
	app.RequireStop()
	require.NotNil(t, w.registry.Service("a"))
}
