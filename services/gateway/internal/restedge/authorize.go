package restedge

import (
	"context"
	"fmt"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/method"
	"konsul.dev/pkg/rpc"
)

// permission is what a method of a service that keeps no tokens takes.
type permission struct {
	method.Method
	// fields lead to what the needs are about, nil where there is none.
	fields []method.Path
}

// permissions returns what the methods take that users may call at a program, by the contracts.
func permissions(server string) (map[string]permission, error) {
	methods, err := method.Served(server)
	if err != nil {
		return nil, err
	}
	out := map[string]permission{}
	for _, m := range methods {
		if !m.Public() {
			continue
		}
		p := permission{Method: m, fields: make([]method.Path, len(m.GetNeeds()))}
		for i, need := range m.GetNeeds() {
			if need.GetBy() != "" {
				return nil, fmt.Errorf("%s: permissions by a function need state, which a gateway has not", m.FullName)
			}
			if need.GetField() == "" {
				continue
			}
			if p.fields[i], err = method.ParsePath(m.Descriptor.Input(), need.GetField()); err != nil {
				return nil, fmt.Errorf("%s: %w", m.FullName, err)
			}
		}
		out[m.FullName] = p
	}
	return out, nil
}

// needed returns the permissions that a request takes; none: every token will do.
func (p permission) needed(request proto.Message) []*registryv1.ACLNeed {
	var out []*registryv1.ACLNeed
	for i, need := range p.GetNeeds() {
		names := []string{""}
		if p.fields[i] != nil {
			names = p.fields[i].Values(request)
		}
		for _, name := range names {
			out = append(out, &registryv1.ACLNeed{Resource: need.GetResource(), Access: need.GetAccess(), Name: need.GetName() + name})
		}
	}
	return out
}

// authorize asks the registry whether a caller's token has what is needed. A management token has;
// the registry said so within the time tokens are believed. It is asked all the same about calls
// that are audited: its log says whose they were.
func authorize(ctx context.Context, tokens registryv1.TokenServiceClient, fullMethod string, needs []*registryv1.ACLNeed, audited bool) error {
	caller := callerFrom(ctx)
	if len(needs) == 0 || caller.Management && !audited {
		return nil
	}
	_, err := tokens.AuthorizeToken(ctx, &registryv1.AuthorizeTokenRequest{Secret: caller.secret, Needs: needs, Method: fullMethod})
	return err
}

// authorizing asks before a call goes on.
type authorizing struct {
	conn   grpc.ClientConnInterface
	tokens registryv1.TokenServiceClient
	rules  map[string]permission
}

func (a authorizing) rule(fullMethod string) (permission, error) {
	rule, ok := a.rules[fullMethod]
	if !ok {
		return rule, fault.New(fault.PermissionDenied, rpc.ReasonUnknownMethod, "%s is not open to tokens", fullMethod)
	}
	return rule, nil
}

// Invoke implements grpc.ClientConnInterface.
func (a authorizing) Invoke(ctx context.Context, fullMethod string, args, reply any, opts ...grpc.CallOption) error {
	rule, err := a.rule(fullMethod)
	if err != nil {
		return err
	}
	request, err := rule.read(args)
	if err != nil {
		return err
	}
	if err := authorize(ctx, a.tokens, fullMethod, rule.needed(request), rule.GetAudited()); err != nil {
		return err
	}
	return a.conn.Invoke(ctx, fullMethod, args, reply, opts...)
}

// NewStream implements grpc.ClientConnInterface.
func (a authorizing) NewStream(ctx context.Context, desc *grpc.StreamDesc, fullMethod string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	rule, err := a.rule(fullMethod)
	if err != nil {
		return nil, err
	}
	streamCtx, cancel := context.WithCancelCause(ctx)
	stream, err := a.conn.NewStream(streamCtx, desc, fullMethod, opts...)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	context.AfterFunc(stream.Context(), func() { cancel(nil) })
	return &authorizedStream{ClientStream: stream, cancel: cancel, check: func(m any) error {
		request, err := rule.read(m)
		if err != nil {
			return err
		}
		return authorize(ctx, a.tokens, fullMethod, rule.needed(request), rule.GetAudited())
	}}, nil
}

// read returns a request that passes as it is or as bytes.
func (p permission) read(m any) (proto.Message, error) {
	if request, ok := m.(proto.Message); ok {
		return request, nil
	}
	request := p.NewRequest()
	if f, ok := m.(*frame); ok {
		if err := proto.Unmarshal(f.data.Materialize(), request); err != nil {
			return nil, fault.Invalid("request", "cannot be decoded").Wrap(err)
		}
	}
	return request, nil
}

// authorizedStream asks about every request on a stream. One that is refused ends the stream, with
// the refusal as its error.
type authorizedStream struct {
	grpc.ClientStream
	cancel  context.CancelCauseFunc
	check   func(any) error
	refused atomic.Pointer[error]
}

// SendMsg implements grpc.ClientStream.
func (s *authorizedStream) SendMsg(m any) error {
	if err := s.check(m); err != nil {
		s.refused.Store(&err)
		s.cancel(err)
		return err
	}
	return s.ClientStream.SendMsg(m)
}

// RecvMsg implements grpc.ClientStream.
func (s *authorizedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if refused := s.refused.Load(); err != nil && refused != nil {
		return *refused
	}
	return err
}
