package restedge

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/method"
	"konsul.dev/pkg/requestid"
)

// ReasonBackendUnreachable is the reason of a call that the gateway took and the service behind it
// did not answer.
const ReasonBackendUnreachable = "BACKEND_UNREACHABLE"

// retryFor bounds how long a REST call that broke is tried at another server: whoever waits longer
// should know that it does. retryUnsent is for one that nobody took: servers restart in that time,
// and who is not there says so soon.
const (
	retryFor    = 3 * time.Second
	retryUnsent = 500 * time.Millisecond
	retryFloor  = 20 * time.Millisecond
	retryMost   = 250 * time.Millisecond
)

// backend is the way to one of the datacenter's services. When the connection breaks, the caller
// hears which service did not answer, and whether the call may have been carried out: the gateway
// itself was there all the time.
type backend struct {
	conn       grpc.ClientConnInterface
	service    string
	datacenter string
}

// Invoke implements grpc.ClientConnInterface. What changes nothing, or carries a request id, is
// tried at another server.
func (b backend) Invoke(ctx context.Context, fullMethod string, args, reply any, opts ...grpc.CallOption) error {
	args, id := withRequestID(args)
	began := time.Now()
	pause := backoff.New(retryFloor, retryMost)
	maybe := false
	for {
		// gRPC names the peer once a call has a connection to go out on; before that nothing has
		// left.
		var reached peer.Peer
		err := b.conn.Invoke(ctx, fullMethod, args, reply, append(slices.Clip(opts), grpc.Peer(&reached))...)
		if !broke(err) {
			return requestid.Explain(err, id)
		}
		limit := retryUnsent
		if reached.Addr != nil {
			limit = retryFor
		}
		maybe = maybe || reached.Addr != nil && !method.IsIdempotent(fullMethod)
		again := !maybe || id != ""
		if !again || time.Since(began) > limit || pause.Wait(ctx) != nil {
			return requestid.Explain(b.explain(fullMethod, err, maybe), id)
		}
	}
}

// NewStream implements grpc.ClientConnInterface. Nothing is repeated: whoever calls has the
// messages.
func (b backend) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := b.conn.NewStream(ctx, desc, method, opts...)
	if broke(err) {
		return nil, b.explain(method, err, false)
	}
	if err != nil {
		return nil, err
	}
	return backendStream{stream, b, method}, nil
}

type backendStream struct {
	grpc.ClientStream
	backend backend
	method  string
}

// RecvMsg implements grpc.ClientStream.
func (s backendStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if broke(err) {
		return s.backend.explain(s.method, err, !method.IsIdempotent(s.method))
	}
	return err
}

// broke reports whether an error is the connection's and not an answer.
func broke(err error) bool {
	return err != nil && !errors.Is(err, io.EOF) && fault.CodeOf(err) == fault.Unavailable && fault.ReasonOf(err) == ""
}

func (b backend) explain(fullMethod string, err error, maybe bool) error {
	if maybe {
		remedy := "look whether it was done before you do it again"
		if m, bad := method.Find(fullMethod); bad == nil && m.Descriptor.Input().Fields().ByName(requestID) != nil {
			remedy = "repeat it with the request id that it had, or look whether it was done"
		}
		return fault.New(fault.Unknown, fault.ReasonOutcomeUnknown, "the %s of datacenter %s was sent the call and did not answer; its outcome is not known", b.service, b.datacenter).
			WithMeta("service", b.service).WithMeta("datacenter", b.datacenter).WithRemedy(remedy).Wrap(err)
	}
	return fault.New(fault.Unavailable, ReasonBackendUnreachable, "the gateway of datacenter %s serves, but the %s behind it did not answer", b.datacenter, b.service).
		WithMeta("service", b.service).WithMeta("datacenter", b.datacenter).WithRetryAfter(time.Second).
		WithRemedy("see that the datacenter's " + b.service + " runs, and that the gateway's endpoints name it").Wrap(err)
}

const requestID = protoreflect.Name("request_id")

// withRequestID returns a request with a request id, by which the registry tells a repeated write
// from a new one, and the id; empty for a kind of request that has none.
func withRequestID(args any) (any, string) {
	message, ok := args.(proto.Message)
	if !ok {
		return args, ""
	}
	field := message.ProtoReflect().Descriptor().Fields().ByName(requestID)
	if field == nil || field.Kind() != protoreflect.StringKind {
		return args, ""
	}
	id := message.ProtoReflect().Get(field).String()
	if id == "" {
		id = requestid.New()
		message = proto.Clone(message)
		message.ProtoReflect().Set(field, protoreflect.ValueOfString(id))
	}
	return message, id
}
