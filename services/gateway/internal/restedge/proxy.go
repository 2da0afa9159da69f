package restedge

import (
	"cmp"
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress
	"google.golang.org/grpc/metadata"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
)

// Backends maps "konsul.registry.v1.KVService", or "/konsul.ca.v1.CertificateService/GetTrustBundle" where
// only some methods are public, to the connection that serves it. What is not listed is not served.
type Backends map[string]grpc.ClientConnInterface

func (b Backends) of(fullMethod string) (grpc.ClientConnInterface, bool) {
	if conn, ok := b[fullMethod]; ok {
		return conn, true
	}
	service, _, _ := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	conn, ok := b[service]
	return conn, ok
}

// newProxy answers a gRPC server that checks the token of every call and passes it to its backend.
func newProxy(backends Backends, tokens *Tokens, maxRequestBytes int64) *grpc.Server {
	p := proxy{backends: backends, tokens: tokens, maxRequestBytes: maxRequestBytes}
	return grpc.NewServer(
		grpc.ForceServerCodecV2(rawCodec{}),
		grpc.MaxRecvMsgSize(mostMessage),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			return rpc.ToStatus(p.serve(stream)).Err()
		}),
	)
}

type proxy struct {
	backends        Backends
	tokens          *Tokens
	maxRequestBytes int64
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
	// The first token is made without one.
	if method != registryv1.ACLService_Bootstrap_FullMethodName {
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
	ctx = metadata.NewOutgoingContext(ctx, passedOn(incoming))
	if secret != "" {
		ctx = rpc.WithToken(ctx, secret)
	}
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	backend, err := conn.NewStream(ctx, desc, method, grpc.ForceCodecV2(rawCodec{}))
	if err != nil {
		return err
	}
	go p.pumpRequests(stream, backend, cancel)
	err = pumpAnswers(stream, backend)
	if _, refused := fault.As(context.Cause(ctx)); refused && err != nil {
		return context.Cause(ctx)
	}
	return err
}

// mostMessage is above every limit that can be set, so that a message over the limit is refused in the
// same words as over REST; gRPC's own would come first otherwise.
const mostMessage = 80 << 20

// passedOn answers what of a client's metadata goes on to the backend: all but what the transport, the
// edge or the tracer sets anew, and the marks that services put on calls between themselves.
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

func (p proxy) pumpRequests(from grpc.ServerStream, to grpc.ClientStream, cancel func(error)) {
	for {
		message := &frame{}
		if err := from.RecvMsg(message); err != nil {
			if errors.Is(err, io.EOF) {
				_ = to.CloseSend() // an error shows in the answers
			} else {
				cancel(err)
			}
			return
		}
		if int64(message.data.Len()) > p.maxRequestBytes {
			message.data.Free()
			cancel(tooLarge("request", p.maxRequestBytes))
			return
		}
		err := to.SendMsg(message)
		message.data.Free()
		if err != nil {
			return // why shows in the answers
		}
	}
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
