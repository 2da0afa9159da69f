package command_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul/konsultest"
	"konsul.dev/pkg/requestid"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

// idsOf returns the ids of the writes among requests.
func idsOf(requests []proto.Message) []string {
	var ids []string
	for _, r := range requests {
		if write, ok := r.(interface{ GetRequestId() string }); ok {
			ids = append(ids, write.GetRequestId())
		}
	}
	return ids
}

func TestADefinitionIsTwoWrites(t *testing.T) {
	g := commandtest.Federation(t)
	path := filepath.Join(t.TempDir(), "service.yaml")
	require.NoError(t, os.WriteFile(path, []byte("service: {name: payment-api, address: h, failover: [{datacenter: us-west}]}"), 0o600))
	got := commandtest.Ctl(t, g, "", "service", "register", "--file", path, "--request-id", "mine")
	require.Zero(t, got.Code, got.Stderr)
	require.Equal(t, []string{"mine", "mine/failover"}, idsOf(g.Requests()))
}

func TestWritesCarryTheIDTheyAreGiven(t *testing.T) {
	for name, args := range map[string][]string{
		"kv set":               {"kv", "set", "config/app/version", "v2"},
		"kv delete":            {"kv", "delete", "config/app/version"},
		"kv txn":               {"kv", "txn", "--set", "a=b"},
		"acl policy create":    {"acl", "policy", "create", "web", "--rule", "kv read"},
		"acl policy update":    {"acl", "policy", "update", "web", "--rule", "kv read"},
		"acl policy delete":    {"acl", "policy", "delete", "web"},
		"acl role create":      {"acl", "role", "create", "engineer", "--policy", "web"},
		"acl role update":      {"acl", "role", "update", "engineer", "--policy", "web"},
		"acl role delete":      {"acl", "role", "delete", "engineer"},
		"acl token delete":     {"acl", "token", "delete", "1fe0b4a2-5f0c-4c11-9c58-90bd1d5a3e7f"},
		"check pass":           {"check", "pass", "http", "--instance", "api-1"},
		"check deregister":     {"check", "deregister", "disk", "--node", "web-1"},
		"maintenance enable":   {"maintenance", "enable", "--node", "web-1"},
		"maintenance disable":  {"maintenance", "disable", "--node", "web-1"},
		"lease grant":          {"lease", "grant", "30s"},
		"lease revoke":         {"lease", "revoke", "7a1c0a5e"},
		"lock release":         {"lock", "release", "jobs/nightly", "--token", "1042"},
		"node register":        {"node", "register", "web-1", "--address", "10.0.0.5"},
		"node deregister":      {"node", "deregister", "web-1"},
		"service register":     {"service", "register", "--name", "api", "--address", "10.0.0.5"},
		"service deregister":   {"service", "deregister", "api-1"},
		"autopilot set-config": {"operator", "autopilot", "set-config", "--min-quorum", "3"},
	} {
		t.Run(name, func(t *testing.T) {
			g := commandtest.Federation(t)
			for _, given := range []string{"mine", ""} {
				with := slices.Clone(args)
				if given != "" {
					with = append(with, "--request-id", given)
				}
				before := len(g.Requests())
				commandtest.Ctl(t, g, "", with...)
				ids := idsOf(g.Requests()[before:])
				require.Len(t, ids, 1, "one write")
				if given != "" {
					require.Equal(t, given, ids[0])
				} else {
					require.NotEmpty(t, ids[0])
					require.NotEqual(t, "mine", ids[0])
				}
			}
		})
	}
}

// Whoever does not hear what became of a write learns the id that the program made for it.
func TestAnUnknownOutcomeShowsTheRequestID(t *testing.T) {
	t.Parallel()
	g := commandtest.Federation(t)
	konsultest.On(g, func(*registryv1.SetRequest) (*registryv1.SetResponse, error) {
		return nil, fault.New(fault.Unknown, fault.ReasonOutcomeUnknown, "its outcome is not known")
	})
	got := commandtest.Ctl(t, g, "", "kv", "set", "k", "v")
	require.Equal(t, 1, got.Code, got.Stderr)
	id := idsOf(g.Requests())[0]
	require.True(t, requestid.Minted(id))
	require.Contains(t, got.Stderr, "  request id: "+id+"\n")
	require.Contains(t, got.Stderr, "remedy: repeat it within 30s with --request-id "+id)
}
