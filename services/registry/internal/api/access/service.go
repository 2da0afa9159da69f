package access

import (
	"context"
	"log/slog"
	"slices"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/api"
	"konsul.dev/services/registry/internal/record"
)

// Service is the ACLService.
type Service struct {
	registryv1.UnimplementedACLServiceServer
	*api.Core
	Bearer *Bearer
	Writer acl.Writer
	// ResetFile opens the bootstrap once more; see acl.ResetFile.
	ResetFile string
	Log       *slog.Logger
}

// changed commits what plan makes of the current state, planning anew when it moved, and returns
// the fault of what did not hold.
func (s *Service) changed(ctx context.Context, requestID string, plan func(r record.Reader) (*registryv1.Command, error)) (*registryv1.CommandResult, error) {
	result, err := s.Planned(ctx, requestID, acl.ReasonMoved, plan)
	if err != nil {
		return nil, err
	}
	return result, acl.Outcome(result)
}

// deleted is changed for a deletion, and returns missing when it deletes nothing.
func (s *Service) deleted(ctx context.Context, requestID string, missing error, plan func(r record.Reader) (*registryv1.Command, error)) (*registryv1.WriteMeta, error) {
	result, err := s.changed(ctx, requestID, plan)
	if err == nil && result.GetChanged() == 0 {
		err = missing
	}
	return s.WriteMeta(result.GetIndex()), err
}

// CreatePolicy stores a new policy.
func (s *Service) CreatePolicy(ctx context.Context, req *registryv1.CreatePolicyRequest) (*registryv1.CreatePolicyResponse, error) {
	policy, meta, err := s.putPolicy(ctx, req.GetRequestId(), req.GetPolicy(), true, nil)
	return &registryv1.CreatePolicyResponse{Policy: policy, Meta: meta}, err
}

// UpdatePolicy replaces a policy.
func (s *Service) UpdatePolicy(ctx context.Context, req *registryv1.UpdatePolicyRequest) (*registryv1.UpdatePolicyResponse, error) {
	policy, meta, err := s.putPolicy(ctx, req.GetRequestId(), req.GetPolicy(), false, req.Cas)
	return &registryv1.UpdatePolicyResponse{Policy: policy, Meta: meta}, err
}

func (s *Service) putPolicy(ctx context.Context, requestID string, given *registryv1.ACLPolicy, fresh bool, cas *uint64) (*registryv1.ACLPolicy, *registryv1.WriteMeta, error) {
	result, err := s.changed(ctx, requestID, func(r record.Reader) (*registryv1.Command, error) {
		return s.Writer.PutPolicy(r, given, fresh, cas)
	})
	if err != nil {
		return nil, nil, err
	}
	stored := &registryv1.ACLPolicy{Name: given.GetName(), Description: given.GetDescription(), Rules: given.GetRules()}
	stored.CreateIndex, stored.ModifyIndex = written(result)
	return stored, s.WriteMeta(result.GetIndex()), nil
}

func written(result *registryv1.CommandResult) (create, modify uint64) {
	for _, row := range result.GetWritten() {
		return row.GetCreateIndex(), row.GetModifyIndex()
	}
	return 0, 0
}

// GetPolicy returns one policy.
func (s *Service) GetPolicy(_ context.Context, req *registryv1.GetPolicyRequest) (*registryv1.GetPolicyResponse, error) {
	resp := &registryv1.GetPolicyResponse{}
	return resp, s.read(&resp.Meta, func(r record.Reader) (err error) {
		resp.Policy, err = acl.Policy(r, req.GetName())
		return err
	})
}

// ListPolicies returns every policy.
func (s *Service) ListPolicies(context.Context, *registryv1.ListPoliciesRequest) (*registryv1.ListPoliciesResponse, error) {
	resp := &registryv1.ListPoliciesResponse{}
	return resp, s.read(&resp.Meta, func(r record.Reader) (err error) {
		resp.Policies, err = acl.Policies(r)
		return err
	})
}

// DeletePolicy deletes a policy.
func (s *Service) DeletePolicy(ctx context.Context, req *registryv1.DeletePolicyRequest) (*registryv1.DeletePolicyResponse, error) {
	meta, err := s.deleted(ctx, req.GetRequestId(), acl.PolicyNotFound(req.GetName()), func(r record.Reader) (*registryv1.Command, error) {
		return s.Writer.DeletePolicy(r, req.GetName(), req.GetForce())
	})
	return &registryv1.DeletePolicyResponse{Meta: meta}, err
}

// CreateRole stores a new role.
func (s *Service) CreateRole(ctx context.Context, req *registryv1.CreateRoleRequest) (*registryv1.CreateRoleResponse, error) {
	role, meta, err := s.putRole(ctx, req.GetRequestId(), req.GetRole(), true, nil)
	return &registryv1.CreateRoleResponse{Role: role, Meta: meta}, err
}

// UpdateRole replaces a role.
func (s *Service) UpdateRole(ctx context.Context, req *registryv1.UpdateRoleRequest) (*registryv1.UpdateRoleResponse, error) {
	role, meta, err := s.putRole(ctx, req.GetRequestId(), req.GetRole(), false, req.Cas)
	return &registryv1.UpdateRoleResponse{Role: role, Meta: meta}, err
}

func (s *Service) putRole(ctx context.Context, requestID string, given *registryv1.ACLRole, fresh bool, cas *uint64) (*registryv1.ACLRole, *registryv1.WriteMeta, error) {
	result, err := s.changed(ctx, requestID, func(r record.Reader) (*registryv1.Command, error) {
		return s.Writer.PutRole(r, given, fresh, cas)
	})
	if err != nil {
		return nil, nil, err
	}
	policies := slices.Compact(slices.Sorted(slices.Values(given.GetPolicies())))
	stored := &registryv1.ACLRole{Name: given.GetName(), Description: given.GetDescription(), Policies: policies}
	stored.CreateIndex, stored.ModifyIndex = written(result)
	return stored, s.WriteMeta(result.GetIndex()), nil
}

// GetRole returns one role.
func (s *Service) GetRole(_ context.Context, req *registryv1.GetRoleRequest) (*registryv1.GetRoleResponse, error) {
	resp := &registryv1.GetRoleResponse{}
	return resp, s.read(&resp.Meta, func(r record.Reader) (err error) {
		resp.Role, err = acl.Role(r, req.GetName())
		return err
	})
}

// ListRoles returns every role.
func (s *Service) ListRoles(context.Context, *registryv1.ListRolesRequest) (*registryv1.ListRolesResponse, error) {
	resp := &registryv1.ListRolesResponse{}
	return resp, s.read(&resp.Meta, func(r record.Reader) (err error) {
		resp.Roles, err = acl.Roles(r)
		return err
	})
}

// DeleteRole deletes a role.
func (s *Service) DeleteRole(ctx context.Context, req *registryv1.DeleteRoleRequest) (*registryv1.DeleteRoleResponse, error) {
	meta, err := s.deleted(ctx, req.GetRequestId(), acl.RoleNotFound(req.GetName()), func(r record.Reader) (*registryv1.Command, error) {
		return s.Writer.DeleteRole(r, req.GetName(), req.GetForce())
	})
	return &registryv1.DeleteRoleResponse{Meta: meta}, err
}

// read runs fn on the state and says of which index the answer is.
func (s *Service) read(meta **registryv1.QueryMeta, fn func(record.Reader) error) error {
	return s.Store.View(func(r record.Reader) error {
		*meta = s.GlobalMeta(r.Index())
		return fn(r)
	})
}

// Explain reports whether a token may do something, and why.
func (s *Service) Explain(ctx context.Context, req *registryv1.ExplainRequest) (*registryv1.ExplainResponse, error) {
	need, err := acl.Question{Resource: req.GetResource(), Access: req.GetAccess(), Name: req.GetName()}.Need()
	if err != nil {
		return nil, err
	}
	index := uint64(0)
	if err := s.Store.View(func(r record.Reader) error { index = r.Index(); return nil }); err != nil {
		return nil, err
	}
	a, err := s.questioned(ctx, req)
	resp := &registryv1.ExplainResponse{AccessorId: req.GetAccessorId(), Permission: need.String()}
	switch {
	case fault.ReasonOf(err) == acl.ReasonTokenExpired:
		resp.Reason = err.Error()
	case err != nil:
		return nil, err
	default:
		resp = s.Tokens.Explain(a, need)
	}
	resp.Meta = s.GlobalMeta(index)
	return resp, nil
}

// questioned returns the rights of the token an Explain is about.
func (s *Service) questioned(ctx context.Context, req *registryv1.ExplainRequest) (*acl.Authorizer, error) {
	own := acl.From(ctx)
	switch {
	case req.GetSecret() != "" && req.GetAccessorId() != "":
		return nil, fault.Invalid("secret", "does not go with accessor_id").WithRemedy("drop one of the two")
	case req.GetSecret() != "":
		a, err := s.Bearer.resolve(ctx, req.GetSecret())
		if fault.CodeOf(err) == fault.Unauthenticated && fault.ReasonOf(err) != acl.ReasonTokenExpired {
			// The caller's own token is fine: this must not read as if it were not.
			return nil, fault.New(fault.NotFound, acl.ReasonTokenNotFound, "no token has that secret here").WithField("secret")
		}
		return a, err
	case req.GetAccessorId() == "" && own.Token() == nil:
		return nil, fault.Invalid("accessor_id", "is missing").WithRemedy("name a token")
	case req.GetAccessorId() == "" || req.GetAccessorId() == own.Accessor():
		return own, nil
	}
	if err := s.Permit(ctx, registryv1.ACLService_Explain_FullMethodName, readACL()); err != nil {
		return nil, err
	}
	return s.Tokens.Accessor(req.GetAccessorId())
}

// readACL is what reading policies, roles and tokens takes. Changing them takes a management token:
// who can write rules can do everything.
func readACL() []acl.Need {
	return []acl.Need{{Resource: acl.Operator, Name: "acl", Access: acl.Read}}
}
