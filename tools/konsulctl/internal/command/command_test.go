package command_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	failoverrouterv1 "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/konsul/konsultest"
	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

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
			gateway := commandtest.Federation(t)
			r := commandtest.Ctl(t, gateway, "", strings.Fields(strings.ReplaceAll(line, `"`, ""))...)
			require.Zero(t, r.Code, r.Stderr)
			require.Len(t, gateway.Requests(), 1)
			commandtest.Same(t, want, gateway.Requests()[0])
		})
	}
	gateway := commandtest.Federation(t)
	require.Equal(t, 5, commandtest.Ctl(t, gateway, "", "cluster", "status", "--all-datacenters").Code, "eu-central is cut off")
	require.Len(t, gateway.Requests(), 4, "the list, then every datacenter that has not left")
}

func TestExitCodes(t *testing.T) {
	gateway := commandtest.Federation(t)
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
			r := commandtest.Ctl(t, gateway, "", c.args...)
			require.Equal(t, c.code, r.Code, r.Stderr)
			if c.code != 0 {
				require.True(t, strings.HasPrefix(r.Stderr, "konsulctl: "), r.Stderr)
			}
		})
	}
}

func TestSettings(t *testing.T) {
	gateway := commandtest.Federation(t)
	tokenFile := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(tokenFile, []byte(konsultest.Token+"\n"), 0o600))
	flags := []string{"kv", "get", "k", "--addr", gateway.Address, "--token-file", tokenFile, "--ca-file", gateway.CAFile}

	require.Zero(t, commandtest.Ctl(t, nil, "", flags...).Code, "flags alone are enough")

	r := commandtest.Ctl(t, nil, "", "kv", "get", "k")
	require.Equal(t, 2, r.Code)
	for _, text := range []string{"field: KONSUL_ADDR", "--addr"} {
		require.Contains(t, r.Stderr, text)
	}
	r = commandtest.Ctl(t, gateway, "", "kv", "get", "k", "--addr", "localhost")
	require.Contains(t, r.Stderr, "field: --addr")
	r = commandtest.Ctl(t, gateway, "", "kv", "get", "k", "--ca-file", tokenFile)
	require.Contains(t, r.Stderr, "field: --ca-file")

	require.NoError(t, os.WriteFile(tokenFile, []byte("another"), 0o600))
	r = commandtest.Ctl(t, nil, "", flags...)
	require.Equal(t, 4, r.Code)
	require.NoError(t, os.WriteFile(tokenFile, nil, 0o600))
	require.Contains(t, commandtest.Ctl(t, nil, "", flags...).Stderr, "--token-file")
}

func TestNobodyAtTheAddress(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	r := commandtest.Ctl(t, commandtest.Federation(t), "", "datacenter", "list", "--addr", "https://"+listener.Addr().String(), "--timeout", "500ms")
	require.Equal(t, 5, r.Code)
	require.Contains(t, r.Stderr, listener.Addr().String())
	require.Contains(t, r.Stderr, "remedy: check that KONSUL_ADDR")
}

func TestOptionsReachTheRegistry(t *testing.T) {
	gateway := commandtest.Federation(t)
	require.Zero(t, commandtest.Ctl(t, gateway, "", "kv", "set", "--cas", "7", "--flags", "9", "--local", "--datacenter", "local", "k", "v").Code)
	commandtest.Same(t, &registryv1.SetRequest{Key: "k", Value: []byte("v"), Scope: registryv1.Scope_SCOPE_LOCAL, Cas: proto.Uint64(7), Flags: 9},
		konsultest.Last[*registryv1.SetRequest](gateway))
	require.Zero(t, commandtest.Ctl(t, gateway, "", "service", "get", "api", "--all-status", "--tag", "v1", "--tag", "http", "--read-mode", "stale").Code)
	commandtest.Same(t, &registryv1.QueryServiceRequest{Service: "api", Tags: []string{"v1", "http"}, ReadMode: registryv1.ReadMode_READ_MODE_STALE},
		konsultest.Last[*registryv1.QueryServiceRequest](gateway))
}

func TestCompletions(t *testing.T) {
	gateway := commandtest.Federation(t)
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		r := commandtest.Ctl(t, nil, "", "completion", shell)
		require.Zero(t, r.Code)
		require.Contains(t, r.Stdout, "konsulctl")
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
		require.Contains(t, commandtest.Ctl(t, gateway, "", append([]string{"__complete"}, args...)...).Stdout, want)
	}
	require.Contains(t, commandtest.Ctl(t, nil, "", "__complete", "service", "get", "").Stdout, ":1", "without a gateway it is an error, not a hang")
}

func TestEveryCommandHasExamples(t *testing.T) {
	for _, line := range []string{
		"", "service", "service get", "service list", "service register", "service deregister", "kv", "kv get", "kv set", "kv list", "kv delete",
		"cluster", "cluster status", "datacenter", "datacenter list", "datacenter token", "datacenter token create", "federation", "federation show",
		"secret", "secret derive", "secret generate", "version",
	} {
		r := commandtest.Ctl(t, nil, "", append(strings.Fields(line), "--help")...)
		require.Zero(t, r.Code)
		require.Contains(t, r.Stdout, "Examples:\n  ", line)
	}
	require.Contains(t, commandtest.Ctl(t, nil, "", "--help").Stdout, "Exit codes:")
	require.Contains(t, commandtest.Ctl(t, nil, "", "version").Stdout, "konsulctl ")
}

func TestTheStateAsOfAnIndexIsAskedFor(t *testing.T) {
	for line, want := range map[string]proto.Message{
		"kv get --at-index 7 config/app/version": &registryv1.GetRequest{Key: "config/app/version", AtIndex: 7},
		"kv list --at-index 7 config/ --keys":    &registryv1.ListRequest{Prefix: "config/", KeysOnly: true, AtIndex: 7},
		"service get api --at-index 7":           &registryv1.QueryServiceRequest{Service: "api", PassingOnly: true, AtIndex: 7},
		"service list --at-index 7":              &registryv1.ListServicesRequest{AtIndex: 7},
		"node list --at-index 7 -o json":         &registryv1.ListNodesRequest{AtIndex: 7},
	} {
		t.Run(line, func(t *testing.T) {
			gateway := commandtest.Federation(t)
			r := commandtest.Ctl(t, gateway, "", strings.Fields(line)...)
			require.Zero(t, r.Code, r.Stderr)
			commandtest.Same(t, want, gateway.Requests()[0])
		})
	}
}
