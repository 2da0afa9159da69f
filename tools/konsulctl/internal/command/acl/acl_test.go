package acl_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/konsul/konsultest"
	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

// asked returns the last request, without what differs from run to run.
func asked(t *testing.T, g *konsultest.Gateway) proto.Message {
	t.Helper()
	requests := g.Requests()
	require.NotEmpty(t, requests)
	m := proto.Clone(requests[len(requests)-1])
	for _, name := range []string{"request_id", "secret"} {
		if field := m.ProtoReflect().Descriptor().Fields().ByTextName(name); field != nil {
			m.ProtoReflect().Clear(field)
		}
	}
	return m
}

func TestAPolicyFileIsReadInEitherForm(t *testing.T) {
	g := commandtest.Federation(t)
	want := &registryv1.CreatePolicyRequest{Policy: &registryv1.ACLPolicy{Name: "web", Description: "servers", Rules: commandtest.ACLPolicy().GetRules()}}
	for name, text := range map[string]string{
		"yaml": `
description: servers
rules:
  - {resource: kv, prefix: config/, access: read}
  - {resource: kv, glob: "config/*/secret", access: deny}
  - {resource: service, exact: web, access: [write, delete]}
  - {resource: node, access: read}
`,
		"json": `{"name": "web", "description": "servers", "rules": [
			{"resource": "kv", "prefix": "config/", "access": "read"}, {"resource": "kv", "glob": "config/*/secret", "access": ["deny"]},
			{"resource": "service", "exact": "web", "access": "write,delete"}, {"resource": "node", "access": ["read"]}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "policy")
			require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
			for _, args := range [][]string{{"--file", path}, {"-f", "-"}} {
				r := commandtest.Ctl(t, g, text, append([]string{"acl", "policy", "create", "web"}, args...)...)
				require.Zero(t, r.Code, r.Stderr)
				require.Empty(t, cmp.Diff(want, asked(t, g), protocmp.Transform()))
			}
		})
	}
	for name, text := range map[string]string{
		"unknown field": "rules: [{resource: kv, acess: read}]", "two matches": "rules: [{resource: kv, exact: a, prefix: b, access: read}]", "another name": "name: other", "no YAML": "rules: [",
	} {
		r := commandtest.Ctl(t, g, text, "acl", "policy", "create", "web", "--file", "-")
		require.Equal(t, 2, r.Code, "%s: %s", name, r.Stderr)
	}
}

func TestAnUpdateKeepsWhatIsNotGiven(t *testing.T) {
	g := commandtest.Federation(t)
	require.Zero(t, commandtest.Ctl(t, g, "", "acl", "policy", "update", "web", "--description", "new", "--cas", "19").Code)
	want := &registryv1.UpdatePolicyRequest{Policy: &registryv1.ACLPolicy{Name: "web", Description: "new", Rules: commandtest.ACLPolicy().GetRules()}, Cas: proto.Uint64(19)}
	require.Empty(t, cmp.Diff(want, asked(t, g), protocmp.Transform()))
	require.Zero(t, commandtest.Ctl(t, g, "", "acl", "role", "update", "engineer", "--policy", "web").Code)
	require.Empty(t, cmp.Diff(&registryv1.UpdateRoleRequest{Role: &registryv1.ACLRole{Name: "engineer", Description: "builds it", Policies: []string{"web"}}}, asked(t, g), protocmp.Transform()))
	require.Zero(t, commandtest.Ctl(t, g, "", "acl", "token", "update", commandtest.Accessor, "--policy", "logs,web", "--never-expires").Code)
	require.Empty(t, cmp.Diff(&registryv1.UpdateTokenRequest{
		AccessorId: commandtest.Accessor, Description: "web servers", Policies: []string{"logs", "web"}, Roles: []string{"engineer"},
	}, asked(t, g), protocmp.Transform()))
}

func TestASecretIsShownOnceAndGoesNowhereElse(t *testing.T) {
	g := commandtest.Federation(t)
	out := filepath.Join(t.TempDir(), "token")
	r := commandtest.Ctl(t, g, "", "acl", "token", "create", "--policy", "web", "--out", out)
	require.Zero(t, r.Code, r.Stderr)
	require.NotContains(t, r.Stdout+r.Stderr, "shown-once")
	text, err := os.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, "shown-once\n", string(text))
	made, ok := g.Requests()[len(g.Requests())-1].(*registryv1.CreateTokenRequest)
	require.True(t, ok)
	require.Len(t, made.GetSecret(), 64, "made here, so that the call can be repeated")

	// A secret is read from where nobody looks over the shoulder, and never repeated.
	r = commandtest.Ctl(t, g, "the-secret-itself\n", "acl", "explain", "--token", "-", "kv", "read", "x")
	require.Zero(t, r.Code, r.Stderr)
	explain, ok := g.Requests()[len(g.Requests())-1].(*registryv1.ExplainRequest)
	require.True(t, ok)
	require.Equal(t, "the-secret-itself", explain.GetSecret())
	r = commandtest.Ctl(t, g, "", "acl", "explain", "--token", "another-secret", "kv", "read", "x")
	require.Zero(t, r.Code, r.Stderr)
	explain, ok = g.Requests()[len(g.Requests())-1].(*registryv1.ExplainRequest)
	require.True(t, ok)
	require.Equal(t, "another-secret", explain.GetSecret())
	require.NotContains(t, r.Stdout+r.Stderr, "another-secret")
	require.Zero(t, commandtest.Ctl(t, g, "", "acl", "explain", "--token", "@"+out, "kv", "read", "x").Code)
}

func TestAKeyThatCanBeSetCanBeGranted(t *testing.T) {
	gateway := commandtest.Federation(t)
	r := commandtest.Ctl(t, gateway, "", "acl", "policy", "create", "web", "--rule", "kv read a b", "--rule", "kv  read,list  my files/*", "--rule", "kv write exact:a  b: c", "--rule", "node read")
	require.Zero(t, r.Code, r.Stderr)
	rules := konsultest.Last[*registryv1.CreatePolicyRequest](gateway).GetPolicy().GetRules()
	require.Equal(t, "a b", rules[0].GetExact())
	require.Equal(t, []string{"read", "list"}, rules[1].GetAccess())
	require.Equal(t, "my files/*", rules[1].GetGlob())
	require.Equal(t, "a  b: c", rules[2].GetExact())
	require.Nil(t, rules[3].GetMatch())
}

func TestAPolicyFileThatIsNoneSaysWhatIsWanted(t *testing.T) {
	gateway := commandtest.Federation(t)
	for name, c := range map[string]struct{ text, field, says string }{
		"hcl of Consul":       {"key_prefix \"app/\" {\n  policy = \"read\"\n}\n", "--file", "Consul"},
		"hcl, one line":       {`key "app/x" { policy = "write" }`, "--file", "Consul"},
		"hcl, a level":        {`operator = "read"`, "--file", "Consul"},
		"hcl with a comment":  {"# what web may\nservice_prefix \"\" { policy = \"read\" }", "--file", "Consul"},
		"JSON of Consul":      {`{"key_prefix": {"app/": {"policy": "read"}}}`, "--file", "Consul"},
		"JSON of Consul, two": {"{\n  \"operator\": \"read\",\n  \"node_prefix\": {\"\": {\"policy\": \"read\"}}\n}", "--file", "Consul"},
		"a word":              {"hello", "--file", "is no policy"},
		"a list":              {"- {resource: kv}", "--file", "is no policy"},
		"broken":              {"rules: [", "--file", "is no policy"},
		"two documents":       {"rules: []\n---\nrules: []\n", "--file", "more than one document"},
		"unknown key":         {"rules: [{resource: kv, acess: read}]", "rules[0].acess", "is no key"},
		"key given twice":     {"rules: []\nrules: []", "rules", "twice"},
		"rule that is none":   {"rules: [kv]", "rules[0]", "a mapping of resource, access"},
		"rules that are none": {"rules: {resource: kv}", "rules", "a list of rules"},
		"resource":            {"rules: [{resource: [kv]}]", "rules[0].resource", "a text is wanted"},
		"access":              {"rules: [{access: {read: true}}]", "rules[0].access", "a list of words"},
		"access in a list":    {"rules: [{access: [[read]]}]", "rules[0].access[0]", "a text is wanted"},
		"two matches":         {"rules: [{exact: a, glob: b}]", "rules[0]", "more than one"},
		"another name":        {"name: other", "NAME", "in the file"},
		"no UTF-8":            {"description: \xff", "--file", "UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			r := commandtest.Ctl(t, gateway, c.text, "acl", "policy", "create", "web", "--file", "-")
			commandtest.Said(t, r, c.field)
			require.Contains(t, r.Stderr, c.says)
		})
	}
	require.Empty(t, gateway.Requests())
	r := commandtest.Ctl(t, gateway, "description: what service = \"x\" may\nrules: [{resource: service, access: read}]", "acl", "policy", "create", "web", "--file", "-")
	require.Zero(t, r.Code, r.Stderr)
}
