package restedge

import (
	"cmp"
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
)

// Backends maps "konsul.registry.v1.KVService", or
// "/konsul.ca.v1.CertificateService/GetTrustBundle" where only some methods are public, to the
// connection that serves it. What is not listed is not served.
type Backends map[string]grpc.ClientConnInterface

func (b Backends) of(fullMethod string) (grpc.ClientConnInterface, bool) {
	if conn, ok := b[fullMethod]; ok {
		return conn, true
	}
	service, _, _ := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	conn, ok := b[service]
	return conn, ok
}

// newProxy returns a gRPC server that checks the token of every call and passes it to its backend.
func newProxy(backends Backends, tokens *Tokens, limits Bounds, inflight *inflight) *grpc.Server {
	p := proxy{backends: backends, tokens: tokens, limits: limits, inflight: inflight}
	return grpc.NewServer(
		grpc.ForceServerCodecV2(rawCodec{}),
		grpc.MaxRecvMsgSize(mostMessage),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			return rpc.ToStatus(p.serve(stream)).Err()
		}),
	)
}

type proxy struct {
	backends Backends
	tokens   *Tokens
	limits   Bounds
	inflight *inflight
}

func (p proxy) serve(stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	incoming, _ := metadata.FromIncomingContext(stream.Context())
	first := func(name string) string {
		if values := incoming.Get(name); len(values) > 0 {
			return values[0]
		}
		return ""
	}
	var caller Caller
	var secret string
	largest := p.limits.MaxRequestBytes
	// The first token is made without one.
	if method == registryv1.ACLService_Bootstrap_FullMethodName {
		largest = min(largest, bootstrapBytes)
	} else {
		var err error
		secret = bearer(first("authorization"), first(tokenHeader))
		if caller, err = p.tokens.Check(stream.Context(), secret); err != nil {
			return err
		}
		secret = cmp.Or(secret, rpc.AnonymousToken)
	}
	conn, ok := p.backends.of(method)
	if !ok {
		return fault.New(fault.Unimplemented, rpc.ReasonUnknownMethod, "%s is not served to clients", method)
	}
	// The deadline and the end of the client's call travel in the context.
	ctx, cancel := context.WithCancelCause(withCaller(stream.Context(), caller))
	defer cancel(nil)
	hold := p.inflight.hold(caller.Accessor)
	defer hold.end()
	requests := requests{stream: stream, messages: messagesOf(stream.Context()), hold: hold, cancel: cancel}
	requests.messages.open(largest, hold, cancel)
	ctx = metadata.NewOutgoingContext(ctx, passedOn(incoming))
	if secret != "" {
		ctx = rpc.WithToken(ctx, secret)
	}
	err := requests.pass(ctx, conn, method)
	if _, refused := fault.As(context.Cause(ctx)); refused && err != nil {
		return context.Cause(ctx)
	}
	return err
}

// requests are what a client sends in one call.
type requests struct {
	stream   grpc.ServerStream
	messages *messages
	hold     *hold
	cancel   context.CancelCauseFunc
}

// pass calls a backend once the first request is there, so that a slow one keeps no backend
// waiting, and passes on what comes from either side.
func (r requests) pass(ctx context.Context, conn grpc.ClientConnInterface, method string) error {
	arriving := make(chan *frame, 1)
	go func() {
		defer close(arriving)
		for {
			r.messages.next()
			message := &frame{}
			if err := r.stream.RecvMsg(message); err != nil {
				if !errors.Is(err, io.EOF) {
					r.cancel(err)
				}
				return
			}
			select {
			case arriving <- message:
			case <-ctx.Done():
				message.data.Free()
				return
			}
		}
	}()
	var message *frame
	select {
	case message = <-arriving: // nil: the client has sent all it had, which is nothing
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	backend, err := conn.NewStream(ctx, desc, method, grpc.ForceCodecV2(rawCodec{}))
	if err != nil {
		return err
	}
	go func() {
		for ; message != nil; message = <-arriving {
			err := backend.SendMsg(message)
			r.hold.give(int64(message.data.Len()))
			message.data.Free()
			if err != nil {
				return // why shows in the answers
			}
		}
		_ = backend.CloseSend() // an error shows in the answers
	}()
	return pumpAnswers(r.stream, backend)
}

const (
	// mostMessage is above every limit that can be set, which messages keeps to in the same words
	// as REST does.
	mostMessage = 80 << 20
	// bootstrapBytes bounds a request for the first token, which anybody may send.
	bootstrapBytes = 64 << 10
)

// passedOn returns what of a client's metadata goes on to the backend: all but what the transport,
// the edge or the tracer sets anew, and the marks that services put on calls between themselves.
func passedOn(incoming metadata.MD) metadata.MD {
	out := metadata.MD{}
	for name, values := range incoming {
		if !reserved(name) {
			out[name] = values
		}
	}
	return out
}

func reserved(name string) bool {
	switch name {
	case "authorization", "content-type", "user-agent", "te", "host", "connection", "keep-alive", "upgrade", "trailer", "forwarded", "via",
		"transfer-encoding", "proxy-authorization", "accept-encoding", "content-length", "traceparent", "tracestate", "baggage", "cookie":
		return true
	}
	for _, prefix := range []string{":", "grpc-", "konsul-", "x-konsul-", "x-forwarded-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func pumpAnswers(to grpc.ServerStream, from grpc.ClientStream) error {
	header, err := from.Header()
	if err == nil && len(header) > 0 {
		if err := to.SendHeader(header); err != nil {
			return err
		}
	}
	for {
		message := &frame{}
		if err := from.RecvMsg(message); err != nil {
			to.SetTrailer(from.Trailer())
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		err := to.SendMsg(message)
		message.data.Free()
		if err != nil {
			return err
		}
	}
}
