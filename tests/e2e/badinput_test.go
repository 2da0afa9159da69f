package e2e

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/tests/framework"
)

// refusal is what a program said when it refused.
func refusal(t *testing.T, bin string, args ...string) string {
	t.Helper()
	// A program that is let in runs until it is stopped: then the test must fail, not hang.
	ctx, cancel := context.WithTimeout(t.Context(), 2*soon)
	defer cancel()
	out, err := exec.CommandContext(ctx, framework.Bin(t, bin), args...).CombinedOutput()
	require.NoErrorf(t, ctx.Err(), "%s %v was not refused: %s", bin, args, out)
	var exit *exec.ExitError
	require.ErrorAsf(t, err, &exit, "%s %v must fail: %s", bin, args, out)
	return string(out)
}

func TestConfigurationIsRefusedByName(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "konsul.yaml")
	require.NoError(t, os.WriteFile(path, []byte("server: {datacenter: 'US East', datacentre: x, secret_file: s}\ngateway: {tls_enabled: false}\n"), 0o600))
	out := refusal(t, "konsul-dc", "--config", path)
	require.Contains(t, out, "server.datacentre")
	require.Contains(t, out, "remedy:")

	require.NoError(t, os.WriteFile(path, []byte("server: {datacenter: 'US East', secret_file: s}\ngateway: {tls_enabled: false}\n"), 0o600))
	out = refusal(t, "konsul-dc", "--config", path, "--check-config")
	require.Contains(t, out, "server.datacenter")
	require.Contains(t, out, "gateway.tls_enabled")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "a refused start must leave nothing")
}

func TestWhatIsWrongIsNamedAndChangesNothing(t *testing.T) {
	lab := framework.StartLab(t, framework.LabOptions{})
	west := lab.Access(framework.USWest)
	west.MustCTL(t, "kv", "set", "kept", "as it was")
	big := bytes.Repeat([]byte("x"), 512*1024+1)
	for name, c := range map[string]struct {
		args  []string
		input string
		names string
		code  int
	}{
		"empty key":                 {[]string{"kv", "set", "", "x"}, "", "key", 1},
		"contradicting scope":       {[]string{"kv", "set", "--local", "global/x", "x"}, "", "key", 1},
		"value over the limit":      {[]string{"kv", "set", "kept", "-"}, string(big), "value", 1},
		"unknown datacenter":        {[]string{"kv", "set", "--datacenter", "atlantis", "kept", "x"}, "", "datacenter", 1},
		"stale cas":                 {[]string{"kv", "set", "--cas", "1", "kept", "x"}, "", "cas", 6},
		"port out of range":         {[]string{"service", "register", "--name", "x", "--port", "70000"}, "", "port", 1},
		"name that is no label":     {[]string{"service", "register", "--name", "a b", "--port", "80"}, "", "name", 1},
		"deregister of a ghost":     {[]string{"service", "deregister", "ghost"}, "", "ghost", 3},
		"value with a dash":         {[]string{"kv", "set", "kept", "-5"}, "", "konsulctl kv set [flags] -- KEY VALUE", 2},
		"key that is no UTF-8":      {[]string{"kv", "set", "k\xff", "v"}, "", "field: key", 2},
		"note that is no UTF-8":     {[]string{"check", "fail", "h", "--instance", "co-1", "--note", "bad\xff"}, "", "field: --note", 2},
		"number that is none":       {[]string{"kv", "set", "--cas", "x", "kept", "v"}, "", "field: --cas", 2},
		"nothing to carry out":      {[]string{"kv", "txn"}, "", "--delete-prefix", 2},
		"policy in HCL":             {[]string{"acl", "policy", "create", "x", "--file", "-"}, "key_prefix \"app/\" {\n  policy = \"read\"\n}\n", "rules: [{resource: kv", 2},
		"join token in a secondary": {[]string{"datacenter", "token", "create", "--datacenter", "ap-south"}, "", framework.USEast, 1},
	} {
		t.Run(name, func(t *testing.T) {
			result := west.CTLInput(t, c.input, c.args...)
			require.NotZero(t, result.Code, result.Stdout)
			require.Contains(t, result.Stderr, c.names)
			if c.code != 1 {
				require.Equal(t, c.code, result.Code, result.Stderr)
			}
		})
	}
	require.Equal(t, "as it was", strings.TrimSuffix(west.MustCTL(t, "kv", "get", "--raw", "kept"), "\n"))
	require.Equal(t, http.StatusRequestEntityTooLarge, west.REST(t, http.MethodPut, "/api/v1/kv/kept", bytes.Repeat(big, 20), nil).Status)
}

// TestInputIsTakenAsPeopleTypeIt has values, keys and bodies that are not plain words.
func TestInputIsTakenAsPeopleTypeIt(t *testing.T) {
	lab := framework.StartLab(t, framework.LabOptions{})
	west := lab.Access(framework.USWest)
	raw := func(key string) string { return west.MustCTL(t, "kv", "get", "--raw", key) }
	pem := "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
	for key, value := range map[string]string{"v/neg": "-5", "v/pem": pem, "v/flag": "--global", "v/bytes": "\xff\xfe", "a b": "1", `"q"`: "2"} {
		west.MustCTL(t, "kv", "set", "--", key, value)
		require.Equal(t, value, raw(key))
	}

	txn := func(args ...string) string { return west.MustCTL(t, append([]string{"kv", "txn"}, args...)...) }
	require.Contains(t, txn("--if", "a b exists", "--if", `"a b" value = 1`, "--get", "a b"), "every comparison holds")
	require.Contains(t, txn("--if", `"\"q\"" exists`, "--get", "a b"), "every comparison holds")
	// Of a key that is not there the numbers are 0, and its value compares with nothing.
	for comparison, holds := range map[string]bool{
		"none absent": true, "none version = 0": true, "none index = 0": true, "none created < 1": true, "none version != 1": true,
		"none exists": false, "none version > 0": false, "none value = x": false, "none value != x": false,
	} {
		require.Equal(t, holds, strings.Contains(txn("--if", comparison, "--get", "a b"), "every comparison holds"), comparison)
	}
	require.Contains(t, txn("--if", "new version = 0", "--set", "new=first"), "every comparison holds")
	require.Contains(t, txn("--if", "new version = 0", "--set", "new=second"), "a comparison does not hold")
	require.Equal(t, "first", raw("new"))

	json := http.Header{"Content-Type": {"application/json"}}
	refused := west.REST(t, http.MethodPut, "/api/v1/kv/body", []byte(`{"a": 1}`), json)
	require.Equal(t, http.StatusBadRequest, refused.Status)
	require.Contains(t, string(refused.Body), "?raw")
	require.Equal(t, http.StatusOK, west.REST(t, http.MethodPut, "/api/v1/kv/body?raw", []byte(`{"a": 1}`), json).Status)
	require.Equal(t, `{"a": 1}`, raw("body"))

	nobody := west
	nobody.Token = ""
	asked := nobody.CTL(t, "kv", "get", "new")
	require.Equal(t, 4, asked.Code, asked.Stderr)
	require.Contains(t, asked.Stderr, "TOKEN_REQUIRED")
	west.MustCTL(t, "acl", "policy", "create", "public", "--rule", "kv read new")
	west.MustCTL(t, "acl", "token", "update", "00000000-0000-0000-0000-000000000002", "--policy", "public")
	require.Eventually(t, func() bool { return nobody.CTL(t, "kv", "get", "--raw", "new").Stdout == "first" }, soon, 100*time.Millisecond)
	watching := nobody.CTL(t, "watch", "kv", "--prefix", "v/")
	require.Equal(t, 4, watching.Code, "a watch that can show nothing ends: %s", watching.Stderr)
	list := nobody.CTL(t, "kv", "list")
	require.Zero(t, list.Code)
	require.Contains(t, list.Stderr, "rows may be missing")
}

// TestAJoinTokenIsForOneDatacenterOnce starts real processes with tokens they must not get in with.
func TestAJoinTokenIsForOneDatacenterOnce(t *testing.T) {
	lab := framework.StartLab(t, framework.LabOptions{})
	east := lab.Access(framework.USEast)
	member := east.CTL(t, "datacenter", "token", "create", "--datacenter", framework.USWest)
	require.NotZero(t, member.Code, "a second us-west must not get in")
	require.Contains(t, member.Stderr, framework.USWest)
	token := east.MustCTL(t, "datacenter", "token", "create", "--datacenter", "ap-south")

	out := join(t, lab, "ap-north", token, "")
	require.Contains(t, out, "ap-south", "the token names another datacenter")
	require.Contains(t, out, "join_token_file")

	require.Contains(t, join(t, lab, "ap-south", "konsul-join-v1.AAAA", ""), "join_token_file")

	short := east.MustCTL(t, "datacenter", "token", "create", "--datacenter", "ap-south", "--ttl", "1ms")
	require.Contains(t, join(t, lab, "ap-south", short, ""), "expired")
	lab.Kill(framework.USEast)
	out = join(t, lab, "ap-south", token, "2s")
	require.Contains(t, out, framework.USEast, "an unreachable primary is named")
}

// TestAServiceWithAnotherSecretIsNotLetIn starts a second registry for us-west that holds a secret
// of its own.
func TestAServiceWithAnotherSecretIsNotLetIn(t *testing.T) {
	lab := framework.StartLab(t, framework.LabOptions{})
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	generated, err := exec.Command(framework.Bin(t, "konsulctl"), "secret", "generate").Output()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(secret, generated, 0o600))
	out := refusal(t, "konsul-registry", "--set", "server.datacenter="+framework.USWest, "--set", "server.primary_datacenter="+framework.USEast,
		"--set", "server.bind_addr="+lab.Network+".9", "--set", "server.data_dir="+filepath.Join(dir, "data"), "--set", "server.secret_file="+secret,
		"--set", "endpoints.ca="+lab.Address(framework.USWest)+":8532")
	require.Contains(t, out, "server.secret_file")
	require.Contains(t, out, "remedy:")
	require.NoFileExists(t, filepath.Join(dir, "data", "registry", "identity.pem"))
}

// join starts the ca of a new datacenter with a token and returns what it said when it gave up.
func join(t *testing.T, lab *framework.Lab, dc, token, timeout string) string {
	t.Helper()
	dir := t.TempDir()
	secret, tokenFile := filepath.Join(dir, "secret"), filepath.Join(dir, "token")
	generated, err := exec.Command(framework.Bin(t, "konsulctl"), "secret", "generate").Output()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(secret, generated, 0o600))
	require.NoError(t, os.WriteFile(tokenFile, []byte(token), 0o600))
	args := []string{
		"--set", "server.datacenter=" + dc, "--set", "server.primary_datacenter=" + framework.USEast,
		"--set", "server.bind_addr=" + lab.Network + ".9", "--set", "server.data_dir=" + filepath.Join(dir, "data"),
		"--set", "server.secret_file=" + secret, "--set", "ca.join_token_file=" + tokenFile,
	}
	if timeout != "" {
		args = append(args, "--set", "ca.join_timeout="+timeout)
	}
	return refusal(t, "konsul-ca", args...)
}
