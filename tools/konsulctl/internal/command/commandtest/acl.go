package commandtest

import (
	"strings"

	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul/konsultest"
)

// Accessor is the accessor id of the federation's token.
const Accessor = "1fe0b4a2-5f0c-4c11-9c58-90bd1d5a3e7f"

func aclToken(id string) *registryv1.Token {
	return &registryv1.Token{
		AccessorId: id, Description: "web servers", Policies: []string{"web"}, Roles: []string{"engineer"}, CreatedAt: at(1), ExpiresAt: at(50),
		CreateIndex: 20, ModifyIndex: 21, OriginDatacenter: "us-east",
	}
}

// ACLPolicy returns the policy web.
func ACLPolicy() *registryv1.ACLPolicy {
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
		return &registryv1.BootstrapResponse{Token: &registryv1.Token{AccessorId: Accessor, Description: "bootstrap token", Management: true, CreatedAt: at(1), ModifyIndex: 9}, Secret: "shown-once", Meta: meta}, nil
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
		return &registryv1.GetPolicyResponse{Policy: ACLPolicy(), Meta: query}, nil
	})
	konsultest.On(g, func(*registryv1.ListPoliciesRequest) (*registryv1.ListPoliciesResponse, error) {
		return &registryv1.ListPoliciesResponse{Policies: []*registryv1.ACLPolicy{{Name: "logs", ModifyIndex: 17}, ACLPolicy()}, Meta: query}, nil
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
		return &registryv1.CreateTokenResponse{Token: aclToken(Accessor), Secret: "shown-once", Meta: meta}, nil
	})
	konsultest.On(g, func(r *registryv1.UpdateTokenRequest) (*registryv1.UpdateTokenResponse, error) {
		return &registryv1.UpdateTokenResponse{Token: aclToken(r.GetAccessorId()), Meta: meta}, nil
	})
	konsultest.On(g, func(*registryv1.CloneTokenRequest) (*registryv1.CloneTokenResponse, error) {
		return &registryv1.CloneTokenResponse{Token: aclToken(Accessor), Secret: "shown-once", Meta: meta}, nil
	})
	konsultest.On(g, func(r *registryv1.GetTokenRequest) (*registryv1.GetTokenResponse, error) {
		return &registryv1.GetTokenResponse{Token: aclToken(r.GetAccessorId()), Meta: query}, nil
	})
	konsultest.On(g, func(*registryv1.GetSelfRequest) (*registryv1.GetSelfResponse, error) {
		return &registryv1.GetSelfResponse{Token: aclToken(Accessor), Meta: query}, nil
	})
	konsultest.On(g, func(*registryv1.ListTokensRequest) (*registryv1.ListTokensResponse, error) {
		return &registryv1.ListTokensResponse{Tokens: []*registryv1.Token{aclToken(Accessor), {AccessorId: "f0e1", Local: true, Management: true, Description: "keys"}}, Meta: query}, nil
	})
	konsultest.On(g, func(r *registryv1.DeleteTokenRequest) (*registryv1.DeleteTokenResponse, error) {
		if r.GetAccessorId() == "last" && !r.GetForce() {
			return nil, fault.New(fault.FailedPrecondition, "ACL_LAST_MANAGEMENT_TOKEN", "last is the last global management token").WithField("accessor_id").WithRemedy("make another one first, or force")
		}
		return &registryv1.DeleteTokenResponse{Meta: meta}, nil
	})
	konsultest.On(g, func(r *registryv1.ExplainRequest) (*registryv1.ExplainResponse, error) {
		answer := &registryv1.ExplainResponse{AccessorId: r.GetAccessorId(), Permission: r.GetResource() + ":" + r.GetAccess() + " on local/" + r.GetName(), Meta: query}
		allow := &registryv1.ExplainMatch{Policy: "web", Rule: 0, Definition: ACLPolicy().GetRules()[0]}
		switch {
		case r.GetResource() == "operator":
			answer.Permission, answer.Reason = "operator:write on raft", "no rule allows it"
		case strings.Contains(r.GetName(), "secret"):
			deny := &registryv1.ExplainMatch{Policy: "web", Role: "engineer", Rule: 1, Definition: ACLPolicy().GetRules()[1], Denies: true, Decisive: true}
			answer.AccessorId, answer.Matches, answer.Reason = Accessor, []*registryv1.ExplainMatch{deny, allow}, "a rule denies it, which wins over every rule that allows"
		default:
			allow.Decisive = true
			answer.Allowed, answer.Matches, answer.Reason = true, []*registryv1.ExplainMatch{allow}, "a rule allows it and none denies it"
		}
		return answer, nil
	})
}
