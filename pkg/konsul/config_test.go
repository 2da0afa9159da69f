package konsul_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/pkg/konsul/konsultest"
)

func lookup(values map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := values[name]
		return value, ok
	}
}

func TestConfigFromLookupReadsAList(t *testing.T) {
	gateway := konsultest.Start(t)
	cfg, err := konsul.ConfigFromLookup(lookup(map[string]string{
		"KONSUL_ADDR": " https://a:8500, https://b ,", "KONSUL_TOKEN": "secret\n", "KONSUL_CA_FILE": gateway.CAFile,
	}))
	require.NoError(t, err)
	require.Equal(t, []string{"https://a:8500", "https://b"}, cfg.Addresses)
	require.Equal(t, "secret", cfg.Token)
	require.Equal(t, gateway.CAFile, cfg.CAFile)
}

func TestConfigErrorsNameTheVariable(t *testing.T) {
	noPEM := filepath.Join(t.TempDir(), "roots.pem")
	require.NoError(t, os.WriteFile(noPEM, []byte("hello"), 0o600))
	for name, c := range map[string]struct{ variable, value string }{
		"no address":          {"KONSUL_ADDR", ""},
		"plaintext":           {"KONSUL_ADDR", "http://127.0.0.1:8500"},
		"no scheme":           {"KONSUL_ADDR", "127.0.0.1:8500"},
		"host and port only":  {"KONSUL_ADDR", "localhost:8500"},
		"path":                {"KONSUL_ADDR", "https://127.0.0.1:8500/api"},
		"userinfo":            {"KONSUL_ADDR", "https://me@127.0.0.1:8500"},
		"port":                {"KONSUL_ADDR", "https://127.0.0.1:85000"},
		"second of two":       {"KONSUL_ADDR", "https://127.0.0.1:8500,ftp://x"},
		"no token":            {"KONSUL_TOKEN", ""},
		"token with a space":  {"KONSUL_TOKEN", "Bearer abc"},
		"no such file":        {"KONSUL_CA_FILE", filepath.Join(t.TempDir(), "none.pem")},
		"file without a root": {"KONSUL_CA_FILE", noPEM},
	} {
		t.Run(name, func(t *testing.T) {
			values := map[string]string{"KONSUL_ADDR": "https://127.0.0.1:8500", "KONSUL_TOKEN": "t"}
			values[c.variable] = c.value
			_, err := konsul.ConfigFromLookup(lookup(values))
			f, ok := fault.As(err)
			require.True(t, ok, "%v", err)
			require.Equal(t, fault.InvalidArgument, f.Code())
			require.Equal(t, c.variable, f.Field())
			require.NotEmpty(t, f.Remedy())
		})
	}
}

func TestConfigFromEnvReadsTheEnvironment(t *testing.T) {
	t.Setenv("KONSUL_ADDR", "https://a:8500")
	t.Setenv("KONSUL_TOKEN", "t")
	t.Setenv("KONSUL_CA_FILE", "")
	cfg, err := konsul.ConfigFromEnv()
	require.NoError(t, err)
	require.NoError(t, cfg.Validate())
}

func TestNewReportsEveryProblem(t *testing.T) {
	_, err := konsul.New(konsul.Config{Timeout: -1, Datacenter: "US"})
	for _, field := range []string{"Addresses", "Token", "Timeout", "Datacenter"} {
		require.ErrorContains(t, err, field)
	}
}
