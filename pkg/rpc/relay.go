package rpc

import (
	"cmp"
	"context"
	"slices"

	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"konsul.dev/pkg/fault"
)

// Encoded is a message as it goes over the wire. A call passed on travels as it came, and so does what is answered.
type Encoded []byte

// Relay passes calls of some methods on to other servers before their requests are decoded.
type Relay interface {
	// Relays says whether calls of a method may be passed on.
	Relays(fullMethod string) bool
	// Relay answers a call, elsewhere or by here, which takes the request as it came or changed. It runs behind the door, but in
	// front of ServerParams.Unary: what those interceptors see to is not done here for calls that are passed on.
	Relay(ctx context.Context, fullMethod string, request Encoded, here func(ctx context.Context, request Encoded) (any, error)) (any, error)
}

// relayed is a method whose calls may be passed on, or may have been.
type relayed struct {
	impl    any
	handler grpc.MethodHandler
}

// RegisterService implements grpc.ServiceRegistrar. Calls are admitted before their request is read.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	own := *desc
	own.Methods = slices.Clone(desc.Methods)
	for i := range own.Methods {
		m := &own.Methods[i]
		fullMethod := "/" + desc.ServiceName + "/" + m.MethodName
		serve := s.direct(m.Handler)
		if s.relay != nil && s.relay.Relays(fullMethod) {
			s.relayed[fullMethod] = relayed{impl, m.Handler}
			serve = func(_ any, ctx context.Context, receive func(any) error) (any, error) {
				var request Encoded
				if err := receive(&request); err != nil {
					return nil, err
				}
				return s.carry(ctx, fullMethod, request)
			}
		}
		m.Handler = func(impl any, ctx context.Context, receive func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			return s.door.call(ctx, fullMethod, func(ctx context.Context) (any, error) {
				held, err := s.door.bounds.begin(ctx)
				if err != nil {
					return nil, err
				}
				defer held.end()
				return serve(impl, ctx, func(message any) error {
					request := sized{message: message}
					err := receive(&request)
					held.received(request.bytes)
					return cmp.Or(err, request.undecodable(fullMethod))
				})
			})
		}
	}
	s.Server.RegisterService(&own, impl)
}

// direct answers calls by a handler, behind the interceptors.
func (s *Server) direct(handler grpc.MethodHandler) func(impl any, ctx context.Context, receive func(any) error) (any, error) {
	return func(impl any, ctx context.Context, receive func(any) error) (any, error) {
		return handler(impl, ctx, receive, s.inner)
	}
}

// answer answers a call of a method that may be passed on.
func (s *Server) answer(ctx context.Context, fullMethod string, request Encoded) (any, error) {
	return s.door.call(ctx, fullMethod, func(ctx context.Context) (any, error) { return s.carry(ctx, fullMethod, request) })
}

// carry answers a call that was admitted, here or elsewhere.
func (s *Server) carry(ctx context.Context, fullMethod string, request Encoded) (any, error) {
	m := s.relayed[fullMethod]
	undecoded := func(any) error { return nil }
	return m.handler(m.impl, ctx, undecoded, func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		here := func(ctx context.Context, request Encoded) (any, error) {
			if err := s.codec.decode(request, req); err != nil {
				return nil, malformed(fullMethod, err)
			}
			return s.inner(ctx, req, info, handler)
		}
		if s.traces {
			return here(ctx, request) // A call has a span of its own wherever it passes.
		}
		return s.relay.Relay(ctx, fullMethod, request, here)
	})
}

// Call answers a call that another server passed on within one of its own: ctx is that one's, under CarriedBy. It admits, counts and
// logs as if the call had come by itself. Its error is a status.
func (s *Server) Call(ctx context.Context, fullMethod string, request Encoded) (Encoded, error) {
	if _, ok := s.relayed[fullMethod]; !ok {
		return nil, ToStatus(fault.New(fault.Unimplemented, ReasonUnknownMethod, "%s is not passed on", fullMethod)).Err()
	}
	resp, err := s.answer(ctx, fullMethod, request)
	if err != nil {
		return nil, err
	}
	data, err := s.codec.Marshal(resp)
	if err != nil {
		return nil, ToStatus(err).Err()
	}
	defer data.Free()
	return data.Materialize(), nil
}

// Carried answers the metadata that a call under ctx would carry, for one that is passed on within another call.
func Carried(ctx context.Context, p propagation.TextMapPropagator) map[string]string {
	md, _ := metadata.FromOutgoingContext(sent(ctx, p))
	out := make(map[string]string, len(md))
	for key, values := range md {
		out[key] = values[0]
	}
	return out
}

// CarriedBy answers ctx with what Carried answered in place of the metadata that came with it.
func CarriedBy(ctx context.Context, carried map[string]string) context.Context {
	return metadata.NewIncomingContext(ctx, metadata.New(carried))
}

// inRow answers interceptors as one, the first outermost.
func inRow(interceptors []grpc.UnaryServerInterceptor) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		for _, interceptor := range slices.Backward(interceptors) {
			next := handler
			handler = func(ctx context.Context, req any) (any, error) { return interceptor(ctx, req, info, next) }
		}
		return handler(ctx, req)
	}
}
