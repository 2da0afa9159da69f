package command_test

import (
	"encoding/base64"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	failoverrouterv1 "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/konsul/konsultest"
)

func same(t *testing.T, want, got proto.Message) {
	t.Helper()
	require.Empty(t, cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(&registryv1.SetRequest{}, "request_id"),
		protocmp.IgnoreFields(&registryv1.RegisterRequest{}, "request_id"), protocmp.IgnoreFields(&registryv1.SetFailoverPolicyRequest{}, "request_id")))
}

// TestEveryCommandLineOfTheADRAsksTheRightThing takes them as they stand in ADR-0027.
func TestEveryCommandLineOfTheADRAsksTheRightThing(t *testing.T) {
	global := registryv1.Scope_SCOPE_GLOBAL
	for line, want := range map[string]proto.Message{
		`service get api`:                                    &registryv1.QueryServiceRequest{Service: "api", PassingOnly: true},
		`service get api --datacenter us-west`:               &registryv1.QueryServiceRequest{Service: "api", Datacenter: "us-west", PassingOnly: true},
		`service get api --all-datacenters`:                  &failoverrouterv1.ResolveRequest{Service: "api", AllDatacenters: true, PreferLocal: true, SortByLatency: true},
		`service get api --failover us-west,eu-central`:      &failoverrouterv1.ResolveRequest{Service: "api", Failover: []string{"us-west", "eu-central"}},
		`kv set --global config/app/version "v2.0"`:          &registryv1.SetRequest{Key: "config/app/version", Value: []byte("v2.0"), Scope: global},
		`kv set --global config/feature_flags/new_ui "true"`: &registryv1.SetRequest{Key: "config/feature_flags/new_ui", Value: []byte("true"), Scope: global},
		`kv get --datacenter us-east config/app/version`:     &registryv1.GetRequest{Key: "config/app/version", Datacenter: "us-east"},
		`kv get --datacenter eu-central config/app/version`:  &registryv1.GetRequest{Key: "config/app/version", Datacenter: "eu-central"},
		`kv set --datacenter us-east config/local/db_url "postgresql://us-db:5432/app"`: &registryv1.SetRequest{
			Key: "config/local/db_url", Value: []byte("postgresql://us-db:5432/app"), Datacenter: "us-east",
		},
		`kv set --datacenter eu-central config/local/db_url "postgresql://eu-db:5432/app"`: &registryv1.SetRequest{
			Key: "config/local/db_url", Value: []byte("postgresql://eu-db:5432/app"), Datacenter: "eu-central",
		},
	} {
		t.Run(line, func(t *testing.T) {
			gateway := federation(t)
			r := ctl(t, gateway, "", strings.Fields(strings.ReplaceAll(line, `"`, ""))...)
			require.Zero(t, r.code, r.stderr)
			require.Len(t, gateway.Requests(), 1)
			same(t, want, gateway.Requests()[0])
		})
	}
	gateway := federation(t)
	require.Equal(t, 5, ctl(t, gateway, "", "cluster", "status", "--all-datacenters").code, "eu-central is cut off")
	require.Len(t, gateway.Requests(), 4, "the list, then every datacenter that has not left")
}

func TestExitCodes(t *testing.T) {
	gateway := federation(t)
	for name, c := range map[string]struct {
		args []string
		code int
	}{
		"done":                  {[]string{"kv", "get", "k"}, 0},
		"help":                  {[]string{"kv", "--help"}, 0},
		"failed":                {[]string{"kv", "get", "lost"}, 1},
		"unknown command":       {[]string{"kvv"}, 2},
		"unknown flag":          {[]string{"kv", "get", "k", "--x"}, 2},
		"port out of range":     {[]string{"service", "register", "--name", "x", "--port", "70000"}, 2},
		"bad format":            {[]string{"kv", "get", "k", "-o", "xml"}, 2},
		"exclusive flags":       {[]string{"kv", "get", "k", "--global", "--local"}, 2},
		"required flag":         {[]string{"datacenter", "token", "create"}, 2},
		"neither file nor name": {[]string{"service", "register"}, 2},
		"bad read mode":         {[]string{"kv", "get", "k", "--read-mode", "DEFAULT"}, 2},
		"bad timeout":           {[]string{"kv", "get", "k", "--timeout", "0s"}, 2},
		"plaintext address":     {[]string{"kv", "get", "k", "--addr", "http://127.0.0.1:8500"}, 2},
		"missing value file":    {[]string{"kv", "set", "k", "@/does/not/exist"}, 2},
		"not found":             {[]string{"kv", "get", "missing"}, 3},
		"ghost":                 {[]string{"service", "deregister", "ghost"}, 3},
		"denied":                {[]string{"kv", "get", "denied"}, 4},
		"unavailable":           {[]string{"kv", "get", "leaderless"}, 5},
		"nobody answered":       {[]string{"service", "get", "nowhere", "--all-datacenters"}, 5},
		"conflict":              {[]string{"kv", "set", "--cas", "0", "k", "v"}, 6},
		"a server is down":      {[]string{"cluster", "status"}, 1},
		"a datacenter is lost":  {[]string{"cluster", "status", "--all-datacenters"}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			r := ctl(t, gateway, "", c.args...)
			require.Equal(t, c.code, r.code, r.stderr)
			if c.code != 0 {
				require.True(t, strings.HasPrefix(r.stderr, "konsulctl: "), r.stderr)
			}
		})
	}
}

func TestSettings(t *testing.T) {
	gateway := federation(t)
	tokenFile := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(tokenFile, []byte(konsultest.Token+"\n"), 0o600))
	flags := []string{"kv", "get", "k", "--addr", gateway.Address, "--token-file", tokenFile, "--ca-file", gateway.CAFile}

	require.Zero(t, ctl(t, nil, "", flags...).code, "flags alone are enough")

	r := ctl(t, nil, "", "kv", "get", "k")
	require.Equal(t, 2, r.code)
	for _, text := range []string{"field: KONSUL_ADDR", "--addr"} {
		require.Contains(t, r.stderr, text)
	}
	r = ctl(t, gateway, "", "kv", "get", "k", "--addr", "localhost")
	require.Contains(t, r.stderr, "field: --addr")
	r = ctl(t, gateway, "", "kv", "get", "k", "--ca-file", tokenFile)
	require.Contains(t, r.stderr, "field: --ca-file")

	require.NoError(t, os.WriteFile(tokenFile, []byte("another"), 0o600))
	r = ctl(t, nil, "", flags...)
	require.Equal(t, 4, r.code)
	require.NoError(t, os.WriteFile(tokenFile, nil, 0o600))
	require.Contains(t, ctl(t, nil, "", flags...).stderr, "--token-file")
}

func TestNobodyAtTheAddress(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	r := ctl(t, federation(t), "", "datacenter", "list", "--addr", "https://"+listener.Addr().String(), "--timeout", "500ms")
	require.Equal(t, 5, r.code)
	require.Contains(t, r.stderr, listener.Addr().String())
	require.Contains(t, r.stderr, "remedy: check that KONSUL_ADDR")
}

func TestValues(t *testing.T) {
	file := filepath.Join(t.TempDir(), "value")
	require.NoError(t, os.WriteFile(file, []byte("from a file\x00"), 0o600))
	for argument, want := range map[string]string{
		"plain": "plain", "": "", "-": "typed\n", "@" + file: "from a file\x00", "@@at": "@at", "-1": "-1",
	} {
		gateway := federation(t)
		r := ctl(t, gateway, "typed\n", "kv", "set", "--", "k", argument)
		require.Zero(t, r.code, r.stderr)
		require.Equal(t, want, string(konsultest.Last[*registryv1.SetRequest](gateway).GetValue()))
	}
	r := ctl(t, federation(t), "", "kv", "get", "--raw", "bytes")
	require.Equal(t, "a\x00\n\xff", r.stdout, "raw is byte for byte")
}

func TestOptionsReachTheRegistry(t *testing.T) {
	gateway := federation(t)
	require.Zero(t, ctl(t, gateway, "", "kv", "set", "--cas", "7", "--flags", "9", "--local", "--datacenter", "local", "k", "v").code)
	same(t, &registryv1.SetRequest{Key: "k", Value: []byte("v"), Scope: registryv1.Scope_SCOPE_LOCAL, Cas: proto.Uint64(7), Flags: 9},
		konsultest.Last[*registryv1.SetRequest](gateway))
	require.Zero(t, ctl(t, gateway, "", "service", "get", "api", "--all-status", "--tag", "v1", "--tag", "http", "--read-mode", "stale").code)
	same(t, &registryv1.QueryServiceRequest{Service: "api", Tags: []string{"v1", "http"}, ReadMode: registryv1.ReadMode_READ_MODE_STALE},
		konsultest.Last[*registryv1.QueryServiceRequest](gateway))
}

func TestRegisterFromFlags(t *testing.T) {
	gateway := federation(t)
	r := ctl(t, gateway, "", "service", "register", "--name", "api", "--id", "api-1", "--address", "10.0.0.5", "--port", "8080",
		"--tag", "v1", "--tag", "http", "--meta", "team=web", "--check", "http=passing", "--datacenter", "us-east", "--node", "n1", "--node-address", "10.0.0.1")
	require.Zero(t, r.code, r.stderr)
	same(t, &registryv1.RegisterRequest{
		Node:       &registryv1.Node{Name: "n1", Address: "10.0.0.1"},
		Service:    &registryv1.Service{Id: "api-1", Name: "api", Node: "n1", Address: "10.0.0.5", Port: 8080, Tags: []string{"v1", "http"}, Meta: map[string]string{"team": "web"}},
		Checks:     []*registryv1.Check{{Id: "http", ServiceId: "api-1", Status: passing}},
		Datacenter: "us-east",
	}, konsultest.Last[*registryv1.RegisterRequest](gateway))

	for field, args := range map[string][]string{
		"--address": {"--name", "api"},
		"--name":    {"--name", "a b", "--port", "80"},
		"--check":   {"--name", "api", "--address", "h", "--check", "http=fine"},
	} {
		r := ctl(t, gateway, "", append([]string{"service", "register"}, args...)...)
		require.Equal(t, 2, r.code)
		require.Contains(t, r.stderr, "field: "+field)
	}
}

func TestRegisterFromAFile(t *testing.T) {
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "service.yaml")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	policy := "  failover:\n    - {datacenter: us-west, targets: 3}\n    - {datacenter: eu-central, targets: 2}\n"
	gateway := federation(t)
	r := ctl(t, gateway, "", "service", "register", "--file",
		write("service:\n  name: payment-api\n  datacenter: us-east\n  address: 10.0.0.7\n  checks: [{tcp: '10.0.0.7:80'}]\n"+policy), "--check", "tcp=passing")
	require.Zero(t, r.code, r.stderr)
	require.Equal(t, "registered payment-api (payment-api) in us-east\n", r.stdout)
	same(t, &registryv1.SetFailoverPolicyRequest{Policy: &registryv1.FailoverPolicy{Service: "payment-api", Failover: []*registryv1.FailoverTarget{
		{Datacenter: "us-west", Targets: 3}, {Datacenter: "eu-central", Targets: 2},
	}}}, konsultest.Last[*registryv1.SetFailoverPolicyRequest](gateway))

	r = ctl(t, gateway, "", "service", "register", "--file", write("service: {name: stranded, address: h, failover: [{datacenter: us-west}]}"))
	require.Equal(t, 1, r.code)
	require.Contains(t, r.stderr, "the instance is registered, but")

	before := len(gateway.Requests())
	for field, text := range map[string]string{
		"service.colour":          "service: {name: a, address: h, colour: red}",
		"service.address":         "service: {name: a}",
		"service.checks[0]":       "service: {name: a, address: h, checks: [{tcp: 'h:1'}]}",
		"service.datacenter":      "service: {name: a, address: h, datacenter: us-east}",
		"service.failover[0].dat": "service: {name: a, address: h, failover: [{}]}",
	} {
		r := ctl(t, gateway, "", "service", "register", "--datacenter", "us-west", "--file", write(text))
		require.Equal(t, 2, r.code, r.stderr)
		require.Contains(t, r.stderr, "field: "+field)
		require.Contains(t, r.stderr, "remedy: ")
	}
	require.Equal(t, 2, ctl(t, gateway, "", "service", "register", "--file", "/does/not/exist").code)
	require.Len(t, gateway.Requests(), before, "a refused definition changes nothing")
}

func TestSecretsGoToNewFilesOfTheUsersOwn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dc.secret")
	r := ctl(t, nil, "", "secret", "generate", "--out", path)
	require.Zero(t, r.code, r.stderr)
	require.Empty(t, r.stdout)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	require.NoError(t, err)
	require.Len(t, secret, 32)

	require.Equal(t, 2, ctl(t, nil, "", "secret", "generate", "--out", path).code, "a secret is never overwritten")
	again, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, text, again)
	one, another := ctl(t, nil, "", "secret", "generate"), ctl(t, nil, "", "secret", "generate")
	require.NotEqual(t, one.stdout, another.stdout)

	gateway := federation(t)
	path = filepath.Join(t.TempDir(), "join.token")
	require.Zero(t, ctl(t, gateway, "", "datacenter", "token", "create", "--datacenter", "asia-pacific", "--ttl", "15m", "--out", path).code)
	text, err = os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "konsul-join-v1.abc\n", string(text))

	path = filepath.Join(t.TempDir(), "refused.token")
	require.Equal(t, 1, ctl(t, gateway, "", "datacenter", "token", "create", "--datacenter", "us-west", "--out", path).code)
	require.NoFileExists(t, path, "a refused token leaves no empty file")
}

func TestAComponentsKeyIsDerivedFromTheSecret(t *testing.T) {
	const secret = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	dir := t.TempDir()
	file, out := filepath.Join(dir, "dc.secret"), filepath.Join(dir, "web-1.key")
	require.NoError(t, os.WriteFile(file, []byte(secret+"\n"), 0o600))
	r := ctl(t, nil, "", "secret", "derive", "--component", "agent", "--node", "web-1", "--secret-file", file, "--out", out)
	require.Zero(t, r.code, r.stderr)
	require.Empty(t, r.stdout)
	text, err := os.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, "konsul-key:v1:agent/web-1:EhTIXnjEdP8UI2lRcyO6DYQg4lXJAYrGO2GlshZqymI=\n", string(text))
	info, err := os.Stat(out)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	piped := ctl(t, nil, secret, "secret", "derive", "--component", "agent", "--node", "web-1")
	require.Equal(t, string(text), piped.stdout, "the same key every time")
	require.Equal(t, "konsul-key:v1:agent:mF/5HagqnWQre2JlCGDO+ICmxKmYGFxCTEMLiO4JqH8=\n",
		ctl(t, nil, secret, "secret", "derive", "--component", "agent", "--all-nodes").stdout)

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
			r := ctl(t, nil, stdin, append([]string{"secret", "derive"}, c.args...)...)
			require.Equal(t, 2, r.code)
			require.Contains(t, r.stderr, c.want)
			require.NotContains(t, r.stderr, "field: server.secret_file", "a flag is named as it was typed")
			require.Empty(t, r.stdout)
		})
	}
	again, err := os.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, text, again, "a refusal changes nothing")
}

func TestCompletions(t *testing.T) {
	gateway := federation(t)
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		r := ctl(t, nil, "", "completion", shell)
		require.Zero(t, r.code)
		require.Contains(t, r.stdout, "konsulctl")
	}
	for want, args := range map[string][]string{
		"payment-api\n":        {"service", "get", ""},
		"eu-central\n":         {"kv", "get", "--datacenter", ""},
		"us-east\n":            {"service", "get", "api", "--failover", ""},
		"config/app/version\n": {"kv", "get", "con"},
		"yaml\n":               {"kv", "get", "-o", ""},
		"linearizable\n":       {"kv", "list", "--read-mode", ""},
		"deregister":           {"service", ""},
	} {
		require.Contains(t, ctl(t, gateway, "", append([]string{"__complete"}, args...)...).stdout, want)
	}
	require.Contains(t, ctl(t, nil, "", "__complete", "service", "get", "").stdout, ":1", "without a gateway it is an error, not a hang")
}

func TestEveryCommandHasExamples(t *testing.T) {
	for _, line := range []string{
		"", "service", "service get", "service list", "service register", "service deregister", "kv", "kv get", "kv set", "kv list", "kv delete",
		"cluster", "cluster status", "datacenter", "datacenter list", "datacenter token", "datacenter token create", "federation", "federation show",
		"secret", "secret derive", "secret generate", "version",
	} {
		r := ctl(t, nil, "", append(strings.Fields(line), "--help")...)
		require.Zero(t, r.code)
		require.Contains(t, r.stdout, "Examples:\n  ", line)
	}
	require.Contains(t, ctl(t, nil, "", "--help").stdout, "Exit codes:")
	require.Contains(t, ctl(t, nil, "", "version").stdout, "konsulctl ")
}
