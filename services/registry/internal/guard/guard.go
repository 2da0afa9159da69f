package guard

import (
	"context"

	"google.golang.org/grpc"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/audit"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/kv"
	"konsul.dev/services/registry/internal/quota"
)

// Guard decides what a caller's token allows, behind the door that decided whose it is. It is the
// one check for all faces: a call that is passed on is checked again where it arrives. Services
// that act as themselves may do what the contracts let them.
type Guard struct {
	rules  Rules
	peers  *acl.Authorizer
	audit  *audit.Log
	quotas *quota.Quotas
}

// New returns a guard that writes what it refuses to the audit log, and refuses who asks too
// fast.
func New(rules Rules, log *audit.Log, quotas *quota.Quotas) Guard {
	return Guard{rules: rules, peers: acl.Everything(), audit: log, quotas: quotas}
}

// authorizer returns the rights of the call's caller, and the rule of its method.
func (g Guard) authorizer(ctx context.Context, fullMethod string) (*acl.Authorizer, Rule, error) {
	rule, known := g.rules[fullMethod]
	a, ok := rpc.CallerFrom(ctx).Grant.(*acl.Authorizer)
	if !ok {
		return g.peers, rule, nil
	}
	if !known {
		return nil, rule, fault.New(fault.PermissionDenied, rpc.ReasonUnknownMethod, "%s is not open to tokens", fullMethod)
	}
	return a, rule, g.quotas.Request(a.Accessor())
}

// check asks for what a request takes.
func (g Guard) check(ctx context.Context, a *acl.Authorizer, rule Rule, fullMethod string, req any) error {
	if len(rule.needs) == 0 || a.Management() {
		return nil
	}
	needs, err := rule.Needs(ctx, req)
	if err != nil {
		return err
	}
	if err := a.Check(needs...); err != nil {
		e := audit.EntryOf(ctx, fullMethod, err)
		e.Resource, e.RequestID = acl.Names(needs), fsm.RequestIDOf(req)
		g.audit.Denied(ctx, e)
		return err
	}
	return nil
}

// Refused notes a call that was turned away at the door.
func (g Guard) Refused(ctx context.Context, fullMethod string, err error) {
	g.audit.Denied(ctx, audit.EntryOf(ctx, fullMethod, err))
}

// Audited is an interceptor behind the one that passes calls on: it notes audited calls where
// they are carried out, once, with what came of them.
func (g Guard) Audited(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	if rule := g.rules[info.FullMethod]; rule.audited {
		e := audit.EntryOf(ctx, info.FullMethod, err)
		e.RequestID = fsm.RequestIDOf(req)
		if needs, bad := rule.Needs(ctx, req); bad == nil {
			e.Resource = acl.Names(needs)
		}
		g.audit.Changed(ctx, e)
	}
	return resp, err
}

// Unary is the guard as an interceptor.
func (g Guard) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	a, rule, err := g.authorizer(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	ctx = kv.WithKey(ctx, req)
	if err := g.check(ctx, a, rule, info.FullMethod, req); err != nil {
		return nil, err
	}
	rule.complete(req)
	return handler(acl.With(ctx, a), req)
}

// Stream is the guard as an interceptor of streams: it checks every request that comes in on one.
func (g Guard) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	a, rule, err := g.authorizer(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	return handler(srv, &guardedStream{ServerStream: stream, ctx: acl.With(stream.Context(), a), check: func(m any) error {
		return g.check(stream.Context(), a, rule, info.FullMethod, m)
	}})
}

type guardedStream struct {
	grpc.ServerStream
	//nolint:containedctx // grpc hands a stream's context out by method; this is how interceptors replace it
	ctx   context.Context
	check func(any) error
}

func (s *guardedStream) Context() context.Context { return s.ctx }

func (s *guardedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.check(m)
}
