package command_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul/konsultest"
)

const accessor = "1fe0b4a2-5f0c-4c11-9c58-90bd1d5a3e7f"

func aclToken(id string) *registryv1.Token {
	return &registryv1.Token{
		AccessorId: id, Description: "web servers", Policies: []string{"web"}, Roles: []string{"engineer"}, CreatedAt: at(1), ExpiresAt: at(50),
		CreateIndex: 20, ModifyIndex: 21, OriginDatacenter: "us-east",
	}
}

func aclPolicy() *registryv1.ACLPolicy {
	return &registryv1.ACLPolicy{Name: "web", Description: "servers", CreateIndex: 18, ModifyIndex: 19, Rules: []*registryv1.ACLRule{
		{Resource: "kv", Match: &registryv1.ACLRule_Prefix{Prefix: "config/"}, Access: []string{"read"}},
		{Resource: "kv", Match: &registryv1.ACLRule_Glob{Glob: "config/*/secret"}, Access: []string{"deny"}},
		{Resource: "service", Match: &registryv1.ACLRule_Exact{Exact: "web"}, Access: []string{"write", "delete"}},
		{Resource: "node", Access: []string{"read"}},
	}}
}

// accessControl plays the registry's part.
func accessControl(g *konsultest.Gateway) {
	meta, query := &registryv1.WriteMeta{Datacenter: "us-east", Index: 21}, &registryv1.QueryMeta{Datacenter: "us-west", Index: 22, KnownLeader: true}
	konsultest.On(g, func(*registryv1.BootstrapRequest) (*registryv1.BootstrapResponse, error) {
		return &registryv1.BootstrapResponse{Token: &registryv1.Token{AccessorId: accessor, Description: "bootstrap token", Management: true, CreatedAt: at(1), ModifyIndex: 9}, Secret: "shown-once", Meta: meta}, nil
	})
	konsultest.On(g, func(r *registryv1.CreatePolicyRequest) (*registryv1.CreatePolicyResponse, error) {
		p := proto.CloneOf(r.GetPolicy())
		p.CreateIndex, p.ModifyIndex = 21, 21
		return &registryv1.CreatePolicyResponse{Policy: p, Meta: meta}, nil
	})
	konsultest.On(g, func(r *registryv1.UpdatePolicyRequest) (*registryv1.UpdatePolicyResponse, error) {
		return &registryv1.UpdatePolicyResponse{Policy: r.GetPolicy(), Meta: meta}, nil
	})
	konsultest.On(g, func(*registryv1.GetPolicyRequest) (*registryv1.GetPolicyResponse, error) {
		return &registryv1.GetPolicyResponse{Policy: aclPolicy(), Meta: query}, nil
	})
	konsultest.On(g, func(*registryv1.ListPoliciesRequest) (*registryv1.ListPoliciesResponse, error) {
		return &registryv1.ListPoliciesResponse{Policies: []*registryv1.ACLPolicy{{Name: "logs", ModifyIndex: 17}, aclPolicy()}, Meta: query}, nil
	})
	konsultest.On(g, func(*registryv1.DeletePolicyRequest) (*registryv1.DeletePolicyResponse, error) {
		return &registryv1.DeletePolicyResponse{Meta: meta}, nil
	})
	role := &registryv1.ACLRole{Name: "engineer", Description: "builds it", Policies: []string{"logs", "web"}, CreateIndex: 20, ModifyIndex: 20}
	konsultest.On(g, func(r *registryv1.CreateRoleRequest) (*registryv1.CreateRoleResponse, error) {
		return &registryv1.CreateRoleResponse{Role: r.GetRole(), Meta: meta}, nil
	})
	konsultest.On(g, func(r *registryv1.UpdateRoleRequest) (*registryv1.UpdateRoleResponse, error) {
		return &registryv1.UpdateRoleResponse{Role: r.GetRole(), Meta: meta}, nil
	})
	konsultest.On(g, func(*registryv1.GetRoleRequest) (*registryv1.GetRoleResponse, error) {
		return &registryv1.GetRoleResponse{Role: role, Meta: query}, nil
	})
	konsultest.On(g, func(*registryv1.ListRolesRequest) (*registryv1.ListRolesResponse, error) {
		return &registryv1.ListRolesResponse{Roles: []*registryv1.ACLRole{role}, Meta: query}, nil
	})
	konsultest.On(g, func(*registryv1.DeleteRoleRequest) (*registryv1.DeleteRoleResponse, error) {
		return &registryv1.DeleteRoleResponse{Meta: meta}, nil
	})
	konsultest.On(g, func(*registryv1.CreateTokenRequest) (*registryv1.CreateTokenResponse, error) {
		return &registryv1.CreateTokenResponse{Token: aclToken(accessor), Secret: "shown-once", Meta: meta}, nil
	})
	konsultest.On(g, func(r *registryv1.UpdateTokenRequest) (*registryv1.UpdateTokenResponse, error) {
		return &registryv1.UpdateTokenResponse{Token: aclToken(r.GetAccessorId()), Meta: meta}, nil
	})
	konsultest.On(g, func(*registryv1.CloneTokenRequest) (*registryv1.CloneTokenResponse, error) {
		return &registryv1.CloneTokenResponse{Token: aclToken(accessor), Secret: "shown-once", Meta: meta}, nil
	})
	konsultest.On(g, func(r *registryv1.GetTokenRequest) (*registryv1.GetTokenResponse, error) {
		return &registryv1.GetTokenResponse{Token: aclToken(r.GetAccessorId()), Meta: query}, nil
	})
	konsultest.On(g, func(*registryv1.GetSelfRequest) (*registryv1.GetSelfResponse, error) {
		return &registryv1.GetSelfResponse{Token: aclToken(accessor), Meta: query}, nil
	})
	konsultest.On(g, func(*registryv1.ListTokensRequest) (*registryv1.ListTokensResponse, error) {
		return &registryv1.ListTokensResponse{Tokens: []*registryv1.Token{aclToken(accessor), {AccessorId: "f0e1", Local: true, Management: true, Description: "keys"}}, Meta: query}, nil
	})
	konsultest.On(g, func(r *registryv1.DeleteTokenRequest) (*registryv1.DeleteTokenResponse, error) {
		if r.GetAccessorId() == "last" && !r.GetForce() {
			return nil, fault.New(fault.FailedPrecondition, "ACL_LAST_MANAGEMENT_TOKEN", "last is the last global management token").WithField("accessor_id").WithRemedy("make another one first, or force")
		}
		return &registryv1.DeleteTokenResponse{Meta: meta}, nil
	})
	konsultest.On(g, func(r *registryv1.ExplainRequest) (*registryv1.ExplainResponse, error) {
		answer := &registryv1.ExplainResponse{AccessorId: r.GetAccessorId(), Permission: r.GetResource() + ":" + r.GetAccess() + " on local/" + r.GetName(), Meta: query}
		allow := &registryv1.ExplainMatch{Policy: "web", Rule: 0, Definition: aclPolicy().GetRules()[0]}
		switch {
		case r.GetResource() == "operator":
			answer.Permission, answer.Reason = "operator:write on raft", "no rule allows it"
		case strings.Contains(r.GetName(), "secret"):
			deny := &registryv1.ExplainMatch{Policy: "web", Role: "engineer", Rule: 1, Definition: aclPolicy().GetRules()[1], Denies: true, Decisive: true}
			answer.AccessorId, answer.Matches, answer.Reason = accessor, []*registryv1.ExplainMatch{deny, allow}, "a rule denies it, which wins over every rule that allows"
		default:
			allow.Decisive = true
			answer.Allowed, answer.Matches, answer.Reason = true, []*registryv1.ExplainMatch{allow}, "a rule allows it and none denies it"
		}
		return answer, nil
	})
}

// asked answers the last request, without what differs from run to run.
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
	g := federation(t)
	want := &registryv1.CreatePolicyRequest{Policy: &registryv1.ACLPolicy{Name: "web", Description: "servers", Rules: aclPolicy().GetRules()}}
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
				r := ctl(t, g, text, append([]string{"acl", "policy", "create", "web"}, args...)...)
				require.Zero(t, r.code, r.stderr)
				require.Empty(t, cmp.Diff(want, asked(t, g), protocmp.Transform()))
			}
		})
	}
	for name, text := range map[string]string{
		"unknown field": "rules: [{resource: kv, acess: read}]", "two matches": "rules: [{resource: kv, exact: a, prefix: b, access: read}]", "another name": "name: other", "no YAML": "rules: [",
	} {
		r := ctl(t, g, text, "acl", "policy", "create", "web", "--file", "-")
		require.Equal(t, 2, r.code, "%s: %s", name, r.stderr)
	}
}

func TestAnUpdateKeepsWhatIsNotGiven(t *testing.T) {
	g := federation(t)
	require.Zero(t, ctl(t, g, "", "acl", "policy", "update", "web", "--description", "new", "--cas", "19").code)
	want := &registryv1.UpdatePolicyRequest{Policy: &registryv1.ACLPolicy{Name: "web", Description: "new", Rules: aclPolicy().GetRules()}, Cas: proto.Uint64(19)}
	require.Empty(t, cmp.Diff(want, asked(t, g), protocmp.Transform()))
	require.Zero(t, ctl(t, g, "", "acl", "role", "update", "engineer", "--policy", "web").code)
	require.Empty(t, cmp.Diff(&registryv1.UpdateRoleRequest{Role: &registryv1.ACLRole{Name: "engineer", Description: "builds it", Policies: []string{"web"}}}, asked(t, g), protocmp.Transform()))
	require.Zero(t, ctl(t, g, "", "acl", "token", "update", accessor, "--policy", "logs,web", "--never-expires").code)
	require.Empty(t, cmp.Diff(&registryv1.UpdateTokenRequest{
		AccessorId: accessor, Description: "web servers", Policies: []string{"logs", "web"}, Roles: []string{"engineer"},
	}, asked(t, g), protocmp.Transform()))
}

func TestASecretIsShownOnceAndGoesNowhereElse(t *testing.T) {
	g := federation(t)
	out := filepath.Join(t.TempDir(), "token")
	r := ctl(t, g, "", "acl", "token", "create", "--policy", "web", "--out", out)
	require.Zero(t, r.code, r.stderr)
	require.NotContains(t, r.stdout+r.stderr, "shown-once")
	text, err := os.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, "shown-once\n", string(text))
	made, ok := g.Requests()[len(g.Requests())-1].(*registryv1.CreateTokenRequest)
	require.True(t, ok)
	require.Len(t, made.GetSecret(), 64, "made here, so that the call can be repeated")

	// A secret is read from where nobody looks over the shoulder, and never repeated.
	r = ctl(t, g, "the-secret-itself\n", "acl", "explain", "--token", "-", "kv", "read", "x")
	require.Zero(t, r.code, r.stderr)
	explain, ok := g.Requests()[len(g.Requests())-1].(*registryv1.ExplainRequest)
	require.True(t, ok)
	require.Equal(t, "the-secret-itself", explain.GetSecret())
	r = ctl(t, g, "", "acl", "explain", "--token", "another-secret", "kv", "read", "x")
	require.Zero(t, r.code, r.stderr)
	explain, ok = g.Requests()[len(g.Requests())-1].(*registryv1.ExplainRequest)
	require.True(t, ok)
	require.Equal(t, "another-secret", explain.GetSecret())
	require.NotContains(t, r.stdout+r.stderr, "another-secret")
	require.Zero(t, ctl(t, g, "", "acl", "explain", "--token", "@"+out, "kv", "read", "x").code)
}
