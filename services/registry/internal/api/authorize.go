package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/method"
	"konsul.dev/pkg/rpc"
	optionsv1 "konsul.dev/proto/gen/konsul/options/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/audit"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/kv"
	"konsul.dev/services/registry/internal/quota"
)

// Permissions are functions that return the permissions that a request takes, for an access, by the names that
// the contracts use. A malformed request may be refused by one as the handler would.
type Permissions map[string]func(ctx context.Context, req proto.Message, access acl.Access) ([]acl.Need, error)

// Permission makes one of a function of one type of request.
func Permission[T any](needs func(req T, access acl.Access) []acl.Need) func(context.Context, proto.Message, acl.Access) ([]acl.Need, error) {
	return func(_ context.Context, req proto.Message, access acl.Access) ([]acl.Need, error) {
		typed, ok := req.(T)
		if !ok {
			return closed(), nil // The contract names the wrong function; refuse.
		}
		return needs(typed, access), nil
	}
}

// closed is what no token has but those that may do everything.
func closed() []acl.Need { return []acl.Need{{Resource: acl.ACL, Name: "internal", Access: acl.Write}} }

// Rule is what a method asks of the caller's token.
type Rule struct {
	needs []need
	// audited calls are written to the audit log with their outcome; handlers of streams do so themselves.
	audited bool
	// secret leads to what is made up where a request comes in.
	secret method.Path
}

// need is one permission, or what a function or a repeated field makes of it.
type need struct {
	acl.Need
	field method.Path
	by    func(context.Context, proto.Message, acl.Access) ([]acl.Need, error)
}

// Rules maps the full names of all methods. One that is missing is refused to every token.
type Rules map[string]Rule

// NewRules derives the rules from what the contracts say of methods. It fails when they name a function that is
// not there, or no such resource or access.
func NewRules(methods []method.Method, by Permissions) (Rules, error) {
	rules := Rules{}
	for _, m := range methods {
		rule := Rule{audited: m.GetAudited()}
		var err error
		if rule.needs, err = needsOf(m, by); err == nil && m.GetSecret() != "" {
			rule.secret, err = method.ParsePath(m.Descriptor.Input(), m.GetSecret())
		}
		if err != nil {
			return nil, fmt.Errorf("permissions of %s: %w", m.FullName, err)
		}
		rules[m.FullName] = rule
	}
	return rules, nil
}

func needsOf(m method.Method, by Permissions) ([]need, error) {
	var out []need
	if m.GetCheck() == optionsv1.TokenCheck_TOKEN_CHECK_PROGRAMS {
		out = append(out, need{Need: closed()[0]})
	}
	for _, n := range m.GetNeeds() {
		made := need{Need: acl.Need{Name: n.GetName()}, by: by[n.GetBy()]}
		if n.GetBy() != "" && made.by == nil {
			return nil, fmt.Errorf("there is no function %q", n.GetBy())
		}
		var errs [3]error
		if n.GetAccess() != "" || made.by == nil {
			made.Access, errs[0] = acl.ParseAccess("access", n.GetAccess())
		}
		switch {
		case n.GetResource() == acl.ACL.String():
			made.Resource = acl.ACL
		case n.GetResource() != "" || made.by == nil:
			made.Resource, errs[1] = acl.ParseResource("resource", n.GetResource())
		}
		if n.GetField() != "" {
			made.field, errs[2] = method.ParsePath(m.Descriptor.Input(), n.GetField())
		}
		if err := errors.Join(errs[:]...); err != nil {
			return nil, err
		}
		out = append(out, made)
	}
	return out, nil
}

// Needs returns the permissions that a request takes; none: the handler asks for them itself, leaves out what
// the token may not see, or every token will do.
func (r Rule) Needs(ctx context.Context, request any) ([]acl.Need, error) {
	req, ok := request.(proto.Message)
	if !ok {
		return closed(), nil
	}
	out := make([]acl.Need, 0, len(r.needs))
	for _, n := range r.needs {
		switch {
		case n.by != nil:
			more, err := n.by(ctx, req, n.Access)
			if err != nil {
				return nil, err
			}
			out = append(out, more...)
		case n.field != nil:
			for _, value := range n.field.Values(req) {
				out = append(out, acl.Need{Resource: n.Resource, Name: n.Name + value, Access: n.Access})
			}
		default:
			out = append(out, n.Need)
		}
	}
	return out, nil
}

const secretBytes = 32

// complete makes up the secret of a request that makes a token and names none. It is done where the request
// came in, so that it stays the same however often the request is passed on.
func (r Rule) complete(request any) {
	req, ok := request.(proto.Message)
	if !ok || r.secret == nil || r.secret.Value(req) != "" {
		return
	}
	b := make([]byte, secretBytes)
	_, _ = rand.Read(b) // It never fails: the program ends first.
	r.secret.Fill(req, hex.EncodeToString(b))
}

// Guard decides what a caller's token allows, behind the door that decided whose it is. It is the one
// check for all faces: a call that is passed on is checked again where it arrives. Services that act as
// themselves may do what the contracts let them.
type Guard struct {
	rules  Rules
	peers  *acl.Authorizer
	audit  *audit.Log
	quotas *quota.Quotas
}

// NewGuard returns a guard that writes what it refuses to the audit log, and refuses who asks too fast.
func NewGuard(rules Rules, log *audit.Log, quotas *quota.Quotas) Guard {
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
		e := entryOf(ctx, fullMethod, err)
		e.Resource, e.RequestID = naming(needs), fsm.RequestIDOf(req)
		g.audit.Denied(ctx, e)
		return err
	}
	return nil
}

// Refused notes a call that was turned away at the door.
func (g Guard) Refused(ctx context.Context, fullMethod string, err error) {
	g.audit.Denied(ctx, entryOf(ctx, fullMethod, err))
}

// Audited is an interceptor behind the one that passes calls on: it notes audited calls where
// they are carried out, once, with what came of them.
func (g Guard) Audited(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	if rule := g.rules[info.FullMethod]; rule.audited {
		e := entryOf(ctx, info.FullMethod, err)
		e.RequestID = fsm.RequestIDOf(req)
		if needs, bad := rule.Needs(ctx, req); bad == nil {
			e.Resource = naming(needs)
		}
		g.audit.Changed(ctx, e)
	}
	return resp, err
}

func entryOf(ctx context.Context, fullMethod string, err error) audit.Entry {
	caller := rpc.CallerFrom(ctx)
	e := audit.Entry{Accessor: caller.Accessor, Peer: caller.Peer.String(), Method: fullMethod, Outcome: "OK"}
	if id, ok := rpc.PeerID(ctx); ok {
		e.Peer = id.String()
	}
	if err != nil {
		e.Outcome = strings.TrimSpace(rpc.ToStatus(err).Code().String() + " " + fault.ReasonOf(err))
	}
	if f, ok := fault.As(err); ok && e.Accessor == "" {
		e.Accessor = f.Meta()["accessor"]
	}
	return e
}

func naming(needs []acl.Need) string {
	names := make([]string, len(needs))
	for i, n := range needs {
		names[i] = n.String()
	}
	return strings.Join(names, ", ")
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

// permit asks the call's token for permissions that its method's rule leaves to the handler.
func (c *Core) permit(ctx context.Context, fullMethod string, needs []acl.Need) error {
	a := acl.From(ctx)
	err := a.Check(needs...)
	if err != nil {
		e := entryOf(ctx, fullMethod, err)
		e.Accessor, e.Resource = a.Accessor(), naming(needs)
		c.Audit.Denied(ctx, e)
	}
	return err
}
