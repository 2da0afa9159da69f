package secret_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

func TestSecretsGoToNewFilesOfTheUsersOwn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dc.secret")
	r := commandtest.Ctl(t, nil, "", "secret", "generate", "--out", path)
	require.Zero(t, r.Code, r.Stderr)
	require.Empty(t, r.Stdout)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	require.NoError(t, err)
	require.Len(t, secret, 32)

	require.Equal(t, 2, commandtest.Ctl(t, nil, "", "secret", "generate", "--out", path).Code, "a secret is never overwritten")
	again, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, text, again)
	one, another := commandtest.Ctl(t, nil, "", "secret", "generate"), commandtest.Ctl(t, nil, "", "secret", "generate")
	require.NotEqual(t, one.Stdout, another.Stdout)

	gateway := commandtest.Federation(t)
	path = filepath.Join(t.TempDir(), "join.token")
	require.Zero(t, commandtest.Ctl(t, gateway, "", "datacenter", "token", "create", "--datacenter", "asia-pacific", "--ttl", "15m", "--out", path).Code)
	text, err = os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "konsul-join-v1.abc\n", string(text))

	path = filepath.Join(t.TempDir(), "refused.token")
	require.Equal(t, 1, commandtest.Ctl(t, gateway, "", "datacenter", "token", "create", "--datacenter", "us-west", "--out", path).Code)
	require.NoFileExists(t, path, "a refused token leaves no empty file")
}

func TestAComponentsKeyIsDerivedFromTheSecret(t *testing.T) {
	const secret = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	dir := t.TempDir()
	file, out := filepath.Join(dir, "dc.secret"), filepath.Join(dir, "web-1.key")
	require.NoError(t, os.WriteFile(file, []byte(secret+"\n"), 0o600))
	r := commandtest.Ctl(t, nil, "", "secret", "derive", "--component", "agent", "--node", "web-1", "--secret-file", file, "--out", out)
	require.Zero(t, r.Code, r.Stderr)
	require.Empty(t, r.Stdout)
	text, err := os.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, "konsul-key:v1:agent/web-1:EhTIXnjEdP8UI2lRcyO6DYQg4lXJAYrGO2GlshZqymI=\n", string(text))
	info, err := os.Stat(out)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	piped := commandtest.Ctl(t, nil, secret, "secret", "derive", "--component", "agent", "--node", "web-1")
	require.Equal(t, string(text), piped.Stdout, "the same key every time")
	require.Equal(t, "konsul-key:v1:agent:mF/5HagqnWQre2JlCGDO+ICmxKmYGFxCTEMLiO4JqH8=\n",
		commandtest.Ctl(t, nil, secret, "secret", "derive", "--component", "agent", "--all-nodes").Stdout)

	for name, c := range map[string]struct {
		args  []string
		stdin string
		want  string
	}{
		"over a file":             {args: []string{"--component", "gateway", "--out", out}, want: "--out"},
		"without a component":     {want: "--component"},
		"an unknown component":    {args: []string{"--component", "proxy"}, want: "failover-router"},
		"the registry":            {args: []string{"--component", "registry"}, want: "needs the datacenter secret itself"},
		"an agent without a node": {args: []string{"--component", "agent"}, want: "--all-nodes"},
		"a gateway of a node":     {args: []string{"--component", "gateway", "--node", "x"}, want: "--node"},
		"all gateways":            {args: []string{"--component", "gateway", "--all-nodes"}, want: "--all-nodes"},
		"one and all":             {args: []string{"--component", "agent", "--node", "x", "--all-nodes"}, want: "--all-nodes"},
		"a node that is a path":   {args: []string{"--component", "agent", "--node", "a/b"}, want: "--node"},
		"no such file":            {args: []string{"--component", "gateway", "--secret-file", filepath.Join(dir, "none")}, want: "--secret-file"},
		"no secret":               {args: []string{"--component", "gateway"}, stdin: "hello", want: "--secret-file"},
		"a key":                   {args: []string{"--component", "gateway", "--secret-file", out}, want: "--secret-file"},
	} {
		t.Run(name, func(t *testing.T) {
			stdin := secret
			if c.stdin != "" {
				stdin = c.stdin
			}
			r := commandtest.Ctl(t, nil, stdin, append([]string{"secret", "derive"}, c.args...)...)
			require.Equal(t, 2, r.Code)
			require.Contains(t, r.Stderr, c.want)
			require.NotContains(t, r.Stderr, "field: server.secret_file", "a flag is named as it was typed")
			require.Empty(t, r.Stdout)
		})
	}
	again, err := os.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, text, again, "a refusal changes nothing")
}
