package access

import (
	"context"
	"fmt"
	"slices"
	"time"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/api"
	"konsul.dev/services/registry/internal/audit"
	"konsul.dev/services/registry/internal/watch"
)

// tokenPatience bounds how long a token that is not known waits for the leader's word.
const tokenPatience = 2 * time.Second

// Bearer resolves bearer tokens. Safe for concurrent use.
type Bearer struct {
	Tokens *acl.View
	Hub    *watch.Hub
	// Confirm returns an index at or above that of every write acknowledged before the call.
	Confirm func(ctx context.Context) (uint64, error)
}

// CheckToken tells the server's door whose a token is: its accessor, with its *acl.Authorizer.
func (b *Bearer) CheckToken(ctx context.Context, secret string) (string, any, error) {
	a, err := b.resolve(ctx, secret)
	if err != nil {
		return "", nil, err
	}
	return a.Accessor(), a, nil
}

// resolve returns what a bearer token may do, or the anonymous one for calls without. A token that
// is not known here may have been made a moment ago: only a server that has all that the leader has
// refuses it. Unavailable when that cannot be learnt.
func (b *Bearer) resolve(ctx context.Context, secret string) (*acl.Authorizer, error) {
	if secret == rpc.AnonymousToken {
		if a, ok := b.Tokens.Anonymous(); ok {
			return a, nil
		}
		return nil, fault.New(fault.Unauthenticated, rpc.ReasonTokenRequired, "the request carries no token").
			WithRemedy("set KONSUL_TOKEN, or send an Authorization: Bearer header")
	}
	a, err := b.Tokens.Resolve(secret)
	if fault.ReasonOf(err) != acl.ReasonTokenUnknown {
		return a, err
	}
	if err := b.catchUp(ctx); err != nil {
		return nil, err
	}
	return b.Tokens.Resolve(secret)
}

// catchUp waits until this server shows everything that was acknowledged before the call.
func (b *Bearer) catchUp(ctx context.Context) error {
	late := fault.New(fault.Unavailable, fault.ReasonNoLeader, "the token is not known to this server, which cannot ask the leader about it").
		WithRetryAfter(100 * time.Millisecond).WithRemedy("try again; look at `konsulctl cluster status`")
	waiting, cancel := context.WithTimeoutCause(ctx, tokenPatience, late)
	defer cancel()
	index, err := b.Confirm(waiting)
	if err == nil {
		err = b.Hub.Await(waiting, index)
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	return late.Wrap(err)
}

// Introspection is the TokenService, by which gateways ask whose a token is.
type Introspection struct {
	registryv1.UnimplementedTokenServiceServer
	*api.Core
	Bearer *Bearer
}

// IntrospectToken returns whose a bearer token is.
func (s *Introspection) IntrospectToken(ctx context.Context, req *registryv1.IntrospectTokenRequest) (*registryv1.IntrospectTokenResponse, error) {
	a, err := s.Bearer.resolve(ctx, req.GetSecret())
	if err != nil {
		s.Audit.Denied(ctx, audit.EntryOf(ctx, registryv1.TokenService_IntrospectToken_FullMethodName, err))
		return nil, err
	}
	return &registryv1.IntrospectTokenResponse{
		AccessorId: a.Accessor(), Management: a.Management(), ExpiresAt: a.Token().GetExpiresAt(),
	}, nil
}

// AuthorizeToken reports whether a bearer token may do something at another service.
func (s *Introspection) AuthorizeToken(ctx context.Context, req *registryv1.AuthorizeTokenRequest) (*registryv1.AuthorizeTokenResponse, error) {
	a, err := s.Bearer.resolve(ctx, req.GetSecret())
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
	if err := s.Permit(acl.With(ctx, a), req.GetMethod(), needs); err != nil {
		return nil, err
	}
	// A change at a service that knows no tokens: here it can be said whose it is, there what came
	// of it.
	if slices.ContainsFunc(needs, func(n acl.Need) bool { return n.Access&(acl.Write|acl.Delete) != 0 }) {
		e := audit.EntryOf(ctx, req.GetMethod(), nil)
		e.Accessor, e.Resource, e.Outcome = a.Accessor(), acl.Names(needs), "authorized"
		s.Audit.Changed(ctx, e)
	}
	return &registryv1.AuthorizeTokenResponse{AccessorId: a.Accessor()}, nil
}
