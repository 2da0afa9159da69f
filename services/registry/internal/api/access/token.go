package access

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/obs"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/federation"
	"konsul.dev/services/registry/internal/record"
)

// Bootstrap makes the first management token.
func (s *Service) Bootstrap(ctx context.Context, req *registryv1.BootstrapRequest) (*registryv1.BootstrapResponse, error) {
	reset, err := s.resetIndex()
	if err != nil {
		return nil, err
	}
	stored, meta, err := s.made(ctx, req.GetRequestId(), func(r record.Reader) (*registryv1.Command, *registryv1.ACLToken, error) {
		return s.Writer.Bootstrap(r, req, reset, s.Clock.Now())
	})
	if err != nil {
		return nil, err
	}
	if reset > 0 {
		if err := os.Remove(s.ResetFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.Log.WarnContext(ctx, "the file that opened the bootstrap is still there; it opens nothing more", obs.KeyError, err)
		}
	}
	return &registryv1.BootstrapResponse{Token: stored.Shown(), Secret: req.GetSecret(), Meta: meta}, nil
}

// resetIndex reads the file that opens the bootstrap once more; 0 when there is none.
func (s *Service) resetIndex() (uint64, error) {
	text, err := os.ReadFile(s.ResetFile)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the file that opens the bootstrap: %w", err)
	}
	return acl.ParseReset(string(text)), nil
}

// made commits a new token.
func (s *Service) made(ctx context.Context, requestID string, plan func(record.Reader) (*registryv1.Command, *registryv1.ACLToken, error)) (acl.Stored, *registryv1.WriteMeta, error) {
	var token *registryv1.ACLToken
	result, err := s.changed(ctx, requestID, func(r record.Reader) (cmd *registryv1.Command, err error) {
		cmd, token, err = plan(r)
		return cmd, err
	})
	if err != nil {
		return acl.Stored{}, nil, err
	}
	var stored acl.Stored
	err = s.Store.View(func(r record.Reader) (err error) {
		stored, err = acl.Made(r, token)
		return err
	})
	return stored, s.WriteMeta(result.GetIndex()), err
}

// belongs refuses to write a global token here when the primary is elsewhere: a request that names
// a datacenter is for a local one.
func (s *Service) belongs(local bool) error {
	if local || s.Federation.IsPrimary() {
		return nil
	}
	return fault.New(fault.FailedPrecondition, federation.ReasonNotPrimary, "a global token is written in the primary, %s", s.Federation.Primary()).
		WithField("datacenter").WithRemedy("leave the datacenter out, or make a local token")
}

// CreateToken makes a token.
func (s *Service) CreateToken(ctx context.Context, req *registryv1.CreateTokenRequest) (*registryv1.CreateTokenResponse, error) {
	if err := s.belongs(req.GetLocal()); err != nil {
		return nil, err
	}
	stored, meta, err := s.made(ctx, req.GetRequestId(), func(r record.Reader) (*registryv1.Command, *registryv1.ACLToken, error) {
		return s.Writer.CreateToken(r, req, s.Clock.Now())
	})
	return &registryv1.CreateTokenResponse{Token: stored.Shown(), Secret: req.GetSecret(), Meta: meta}, err
}

// CloneToken makes a token that has what another one has.
func (s *Service) CloneToken(ctx context.Context, req *registryv1.CloneTokenRequest) (*registryv1.CloneTokenResponse, error) {
	stored, meta, err := s.made(ctx, req.GetRequestId(), func(r record.Reader) (*registryv1.Command, *registryv1.ACLToken, error) {
		cmd, token, err := s.Writer.CloneToken(r, req, s.Clock.Now())
		if err == nil {
			err = s.belongs(token.GetLocal())
		}
		return cmd, token, err
	})
	return &registryv1.CloneTokenResponse{Token: stored.Shown(), Secret: req.GetSecret(), Meta: meta}, err
}

// UpdateToken changes what a token has.
func (s *Service) UpdateToken(ctx context.Context, req *registryv1.UpdateTokenRequest) (*registryv1.UpdateTokenResponse, error) {
	result, err := s.changed(ctx, req.GetRequestId(), func(r record.Reader) (*registryv1.Command, error) {
		old, err := acl.Token(r, req.GetAccessorId())
		if err == nil {
			err = s.belongs(old.Token.GetLocal())
		}
		if err != nil {
			return nil, err
		}
		return s.Writer.UpdateToken(r, req, s.Clock.Now())
	})
	if err != nil {
		return nil, err
	}
	resp := &registryv1.UpdateTokenResponse{Meta: s.WriteMeta(result.GetIndex())}
	return resp, s.Store.View(func(r record.Reader) error {
		stored, err := acl.Token(r, req.GetAccessorId())
		if err == nil {
			resp.Token = stored.Shown()
		}
		return err
	})
}

// GetToken returns a token without its secret.
func (s *Service) GetToken(_ context.Context, req *registryv1.GetTokenRequest) (*registryv1.GetTokenResponse, error) {
	resp := &registryv1.GetTokenResponse{}
	return resp, s.read(&resp.Meta, func(r record.Reader) error {
		stored, err := acl.Token(r, req.GetAccessorId())
		resp.Token = stored.Shown()
		return err
	})
}

// GetSelf returns the token the call carries.
func (s *Service) GetSelf(ctx context.Context, _ *registryv1.GetSelfRequest) (*registryv1.GetSelfResponse, error) {
	resp := &registryv1.GetSelfResponse{}
	return resp, s.read(&resp.Meta, func(r record.Reader) error {
		stored, err := acl.Token(r, acl.From(ctx).Accessor())
		resp.Token = stored.Shown()
		return err
	})
}

// ListTokens returns every token the datacenter knows.
func (s *Service) ListTokens(_ context.Context, req *registryv1.ListTokensRequest) (*registryv1.ListTokensResponse, error) {
	resp := &registryv1.ListTokensResponse{}
	return resp, s.read(&resp.Meta, func(r record.Reader) error {
		all, err := acl.Tokens(r)
		if err != nil {
			return err
		}
		roles, err := acl.Roles(r)
		if err != nil {
			return err
		}
		for _, stored := range all {
			if wanted(stored.Token, roles, req) {
				resp.Tokens = append(resp.Tokens, stored.Shown())
			}
		}
		slices.SortFunc(resp.Tokens, func(a, b *registryv1.Token) int { return strings.Compare(a.GetAccessorId(), b.GetAccessorId()) })
		return nil
	})
}

func wanted(token *registryv1.ACLToken, roles []*registryv1.ACLRole, req *registryv1.ListTokensRequest) bool {
	if role := req.GetRole(); role != "" && !slices.Contains(token.GetRoles(), role) {
		return false
	}
	policy := req.GetPolicy()
	return policy == "" || slices.Contains(token.GetPolicies(), policy) || slices.ContainsFunc(roles, func(r *registryv1.ACLRole) bool {
		return slices.Contains(token.GetRoles(), r.GetName()) && slices.Contains(r.GetPolicies(), policy)
	})
}

// DeleteToken revokes a token.
func (s *Service) DeleteToken(ctx context.Context, req *registryv1.DeleteTokenRequest) (*registryv1.DeleteTokenResponse, error) {
	meta, err := s.deleted(ctx, req.GetRequestId(), acl.TokenNotFound(req.GetAccessorId()), func(r record.Reader) (*registryv1.Command, error) {
		if old, err := acl.Token(r, req.GetAccessorId()); err == nil {
			if err := s.belongs(old.Token.GetLocal()); err != nil {
				return nil, err
			}
		}
		return s.Writer.DeleteToken(r, req.GetAccessorId(), req.GetForce())
	})
	return &registryv1.DeleteTokenResponse{Meta: meta}, err
}
