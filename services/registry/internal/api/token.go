package api

import (
	"context"
	"fmt"
	"slices"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
)

// TokenChecker tells the server's door whose a token is.
type TokenChecker struct{ Tokens *acl.View }

// CheckToken answers the accessor of a token with its *acl.Authorizer.
func (c TokenChecker) CheckToken(_ context.Context, secret string) (string, any, error) {
	a, err := resolve(c.Tokens, secret)
	if err != nil {
		return "", nil, err
	}
	return a.Accessor(), a, nil
}

// resolve answers what a bearer token may do, or the anonymous one for calls without.
func resolve(tokens *acl.View, secret string) (*acl.Authorizer, error) {
	if secret != rpc.AnonymousToken {
		return tokens.Resolve(secret)
	}
	if a, ok := tokens.Anonymous(); ok {
		return a, nil
	}
	return nil, fault.New(fault.Unauthenticated, rpc.ReasonTokenRequired, "the request carries no token").
		WithRemedy("set KONSUL_TOKEN, or send an Authorization: Bearer header")
}

type tokenService struct {
	registryv1.UnimplementedTokenServiceServer
	*Core
}

// IntrospectToken answers whose a bearer token is.
func (s *tokenService) IntrospectToken(ctx context.Context, req *registryv1.IntrospectTokenRequest) (*registryv1.IntrospectTokenResponse, error) {
	a, err := resolve(s.Tokens, req.GetSecret())
	if err != nil {
		s.Audit.Denied(ctx, entryOf(ctx, registryv1.TokenService_IntrospectToken_FullMethodName, err))
		return nil, err
	}
	return &registryv1.IntrospectTokenResponse{
		AccessorId: a.Accessor(), Management: a.Management(), ExpiresAt: a.Token().GetExpiresAt(),
	}, nil
}

// AuthorizeToken answers whether a bearer token may do something at another service.
func (s *tokenService) AuthorizeToken(ctx context.Context, req *registryv1.AuthorizeTokenRequest) (*registryv1.AuthorizeTokenResponse, error) {
	a, err := resolve(s.Tokens, req.GetSecret())
	if err != nil {
		return nil, err
	}
	var needs []acl.Need
	for i, n := range req.GetNeeds() {
		need, err := acl.Question{Resource: n.GetResource(), Access: n.GetAccess(), Name: n.GetName()}.Need()
		if f, ok := fault.As(err); ok {
			return nil, f.WithField(fmt.Sprintf("needs[%d].%s", i, f.Field()))
		}
		needs = append(needs, need)
	}
	if err := s.permit(acl.With(ctx, a), req.GetMethod(), needs); err != nil {
		return nil, err
	}
	// A change at a service that knows no tokens: here it can be said whose it is, there what came of it.
	if slices.ContainsFunc(needs, func(n acl.Need) bool { return n.Access&(acl.Write|acl.Delete) != 0 }) {
		e := entryOf(ctx, req.GetMethod(), nil)
		e.Accessor, e.Resource, e.Outcome = a.Accessor(), naming(needs), "authorized"
		s.Audit.Changed(ctx, e)
	}
	return &registryv1.AuthorizeTokenResponse{AccessorId: a.Accessor()}, nil
}
