package restedge

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	failoverrouterv1 "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
)

// permission says what a method of a service that keeps no tokens takes.
type permission struct {
	// request makes an empty request, for calls that pass as bytes.
	request func() proto.Message
	// needs answers the permissions a request takes; none: every token will do.
	needs func(proto.Message) []*registryv1.ACLNeed
	// recorded calls are told to the registry even when the token may do everything: its audit log says
	// whose they were.
	recorded bool
}

// elsewhere says it of every method that clients may call at such a service. One that is missing is
// refused.
func elsewhere() map[string]permission {
	need := func(resource, access, name string) []*registryv1.ACLNeed {
		return []*registryv1.ACLNeed{{Resource: resource, Access: access, Name: name}}
	}
	federation := func(proto.Message) []*registryv1.ACLNeed { return need("federation", "read", "") }
	service := func(r *failoverrouterv1.ResolveRequest) []*registryv1.ACLNeed {
		return need("service", "read", r.GetService())
	}
	return map[string]permission{
		cav1.CertificateService_GetTrustBundle_FullMethodName: {
			request: func() proto.Message { return &cav1.GetTrustBundleRequest{} },
			needs:   func(proto.Message) []*registryv1.ACLNeed { return nil },
		},
		cav1.CertificateService_CreateJoinToken_FullMethodName: {
			request: func() proto.Message { return &cav1.CreateJoinTokenRequest{} }, recorded: true,
			needs: func(m proto.Message) []*registryv1.ACLNeed {
				r, _ := m.(*cav1.CreateJoinTokenRequest)
				return need("federation", "write", r.GetDatacenter())
			},
		},
		wangossipv1.DatacenterService_ListDatacenters_FullMethodName: {
			request: func() proto.Message { return &wangossipv1.ListDatacentersRequest{} }, needs: federation,
		},
		wangossipv1.DatacenterService_WatchDatacenters_FullMethodName: {
			request: func() proto.Message { return &wangossipv1.WatchDatacentersRequest{} }, needs: federation,
		},
		failoverrouterv1.RouterService_Resolve_FullMethodName: {
			request: func() proto.Message { return &failoverrouterv1.ResolveRequest{} },
			needs: func(m proto.Message) []*registryv1.ACLNeed {
				r, _ := m.(*failoverrouterv1.ResolveRequest)
				return service(r)
			},
		},
		failoverrouterv1.RouterService_WatchResolve_FullMethodName: {
			request: func() proto.Message { return &failoverrouterv1.WatchResolveRequest{} },
			needs: func(m proto.Message) []*registryv1.ACLNeed {
				r, _ := m.(*failoverrouterv1.WatchResolveRequest)
				return service(r.GetRequest())
			},
		},
	}
}

// authorize asks the registry whether a caller's token has what is needed. A management token has; the
// registry said so within the time tokens are believed.
func authorize(ctx context.Context, tokens registryv1.TokenServiceClient, method string, needs []*registryv1.ACLNeed, recorded bool) error {
	caller := callerFrom(ctx)
	if len(needs) == 0 || caller.Management && !recorded {
		return nil
	}
	_, err := tokens.AuthorizeToken(ctx, &registryv1.AuthorizeTokenRequest{Secret: caller.secret, Needs: needs, Method: method})
	return err
}

// authorizing asks before a call goes on.
type authorizing struct {
	conn   grpc.ClientConnInterface
	tokens registryv1.TokenServiceClient
	rules  map[string]permission
}

func (a authorizing) rule(method string) (permission, error) {
	rule, ok := a.rules[method]
	if !ok {
		return rule, fault.New(fault.PermissionDenied, rpc.ReasonUnknownMethod, "%s is not open to tokens", method)
	}
	return rule, nil
}

// Invoke implements grpc.ClientConnInterface.
func (a authorizing) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	rule, err := a.rule(method)
	if err != nil {
		return err
	}
	request, _ := args.(proto.Message)
	if err := authorize(ctx, a.tokens, method, rule.needs(request), rule.recorded); err != nil {
		return err
	}
	return a.conn.Invoke(ctx, method, args, reply, opts...)
}

// NewStream implements grpc.ClientConnInterface.
func (a authorizing) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	rule, err := a.rule(method)
	if err != nil {
		return nil, err
	}
	streamCtx, cancel := context.WithCancelCause(ctx)
	stream, err := a.conn.NewStream(streamCtx, desc, method, opts...)
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
		return authorize(ctx, a.tokens, method, rule.needs(request), rule.recorded)
	}}, nil
}

// read answers a request that passes as it is or as bytes.
func (p permission) read(m any) (proto.Message, error) {
	if request, ok := m.(proto.Message); ok {
		return request, nil
	}
	request := p.request()
	if f, ok := m.(*frame); ok {
		if err := proto.Unmarshal(f.data.Materialize(), request); err != nil {
			return nil, fault.Invalid("request", "cannot be decoded").Wrap(err)
		}
	}
	return request, nil
}

// authorizedStream asks about every request on a stream. One that is refused ends the stream, with the
// refusal as its error.
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
