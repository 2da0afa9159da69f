package konsul

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/method"
	"konsul.dev/pkg/requestid"
	"konsul.dev/pkg/rpc"
)

// ReasonNotUTF8 is the reason of a request that was not sent because a text in it is not valid
// UTF-8.
const ReasonNotUTF8 = "NOT_UTF8"

// ReasonUnreachable is the reason of an Unavailable fault that no server sent: the gateway could
// not be reached, or the connection to it broke.
const ReasonUnreachable = "GATEWAY_UNREACHABLE"

// transport carries every call of a client. What decorates calls (retries, batching) implements it
// over another one, and the generated clients sit on top.
type transport interface{ grpc.ClientConnInterface }

// Retries end after retryFor: a caller who must wait longer should know that it does.
const (
	retryFloor   = 100 * time.Millisecond
	retryCeiling = time.Second
	retryFor     = 3 * time.Second
	// defaultWait is how long a blocking read waits in the registry when it does not say.
	defaultWait = 5 * time.Minute
)

// retrying bounds each call, gives writes a request id, repeats what may be repeated, and turns
// statuses into faults.
type retrying struct {
	next    grpc.ClientConnInterface
	timeout time.Duration
	// gateways is how errors call the other end.
	gateways string
}

func newTransport(conn grpc.ClientConnInterface, cfg Config) transport {
	if !cfg.DisableBatching {
		conn = newBatching(conn)
	}
	return &retrying{next: conn, timeout: cfg.Timeout, gateways: strings.Join(cfg.Addresses, ", ")}
}

// Invoke implements grpc.ClientConnInterface.
func (r *retrying) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	request := withRequestID(ctx, args)
	timeout := r.timeout + wait(request)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	until := time.Now().Add(retryFor)
	pause := backoff.New(retryFloor, retryCeiling)
	var unsure error
	for {
		err := rpc.FromStatus(r.next.Invoke(ctx, method, request, reply, opts...))
		if err == nil {
			return nil
		}
		again := repeatable(err, method, request)
		if again && fault.ReasonOf(err) == fault.ReasonOutcomeUnknown {
			unsure = err
		}
		if !again || !sleep(ctx, pause.Next(), err, until) {
			if unsure != nil && (again || outOfTime(err)) {
				// A repetition that was refused, or not answered in time, does not say that the
				// tries before it were refused.
				err = unsure
			}
			if notUTF8(err) {
				err = namingField(err, request)
			}
			return requestid.Explain(r.explain(ctx, err), requestIDOf(request))
		}
	}
}

// outOfTime reports whether a call ended because its context did.
func outOfTime(err error) bool {
	code := fault.CodeOf(err)
	return code == fault.DeadlineExceeded || code == fault.Canceled
}

// NewStream implements grpc.ClientConnInterface. Streams are neither bounded nor retried.
func (r *retrying) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := r.next.NewStream(ctx, desc, method, opts...)
	if err != nil {
		return nil, r.explain(ctx, rpc.FromStatus(err))
	}
	return faultStream{ClientStream: stream, owner: r}, nil
}

type faultStream struct {
	grpc.ClientStream
	owner *retrying
}

// SendMsg returns faults; io.EOF stays what it is.
func (s faultStream) SendMsg(m any) error {
	err := rpc.FromStatus(s.ClientStream.SendMsg(m))
	if notUTF8(err) {
		err = namingField(err, m)
	}
	return s.owner.explain(s.Context(), err)
}

// RecvMsg returns faults; io.EOF stays what it is.
func (s faultStream) RecvMsg(m any) error {
	return s.owner.explain(s.Context(), rpc.FromStatus(s.ClientStream.RecvMsg(m)))
}

// notUTF8 reports whether a request could not be encoded for a text in it. gRPC leaves nothing but
// the text of such an error.
func notUTF8(err error) bool {
	return err != nil && fault.CodeOf(err) == fault.Internal && strings.Contains(err.Error(), "invalid UTF-8")
}

// namingField returns the fault of a request that could not be encoded.
func namingField(err error, request any) error {
	message, ok := request.(proto.Message)
	if !ok {
		return err
	}
	field := badText(message.ProtoReflect())
	if field == "" {
		return err
	}
	return fault.New(fault.InvalidArgument, ReasonNotUTF8, "is not valid UTF-8").WithField(field).
		WithRemedy("write it in UTF-8; only the value of a key may be any bytes")
}

// badText returns the path of a text that is not valid UTF-8, such as "compare[0].key"; empty when
// all are.
func badText(m protoreflect.Message) (path string) {
	check := func(name string, field protoreflect.FieldDescriptor, v protoreflect.Value) {
		switch {
		case path != "" || field == nil:
		case field.Kind() == protoreflect.StringKind && !utf8.ValidString(v.String()):
			path = name
		case field.Kind() == protoreflect.MessageKind:
			if inner := badText(v.Message()); inner != "" {
				path = name + "." + inner
			}
		}
	}
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		name := string(field.Name())
		switch {
		case field.IsList():
			for i := range v.List().Len() {
				check(fmt.Sprintf("%s[%d]", name, i), field, v.List().Get(i))
			}
		case field.IsMap():
			v.Map().Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
				check(name, field.MapKey(), key.Value())
				check(name, field.MapValue(), value)
				return path == ""
			})
		default:
			check(name, field, v)
		}
		return path == ""
	})
	return path
}

// requestIDField is the field by which the registry tells a repeated write from a new one.
const requestIDField = protoreflect.Name("request_id")

// withRequestID returns the request with a request id if its kind has one. The caller's message is
// left alone: used for a second write, it must not look like a repetition of the first.
func withRequestID(ctx context.Context, args any) any {
	message, ok := args.(proto.Message)
	if !ok {
		return args
	}
	field := message.ProtoReflect().Descriptor().Fields().ByName(requestIDField)
	if field == nil || message.ProtoReflect().Get(field).String() != "" {
		return args
	}
	request := proto.Clone(message)
	request.ProtoReflect().Set(field, protoreflect.ValueOfString(requestID(ctx)))
	return request
}

type requestIDKey struct{}

// WithRequestID has the write that is made with the context carry a request id of the caller's, of
// up to 128 characters. Whoever may have to repeat a write after the program has ended writes the
// id down first: the registry does it once, remembers it for ten minutes, and returns a repetition
// as the first time. The same id with another write is refused (AlreadyExists, REQUEST_ID_REUSED),
// so a context is for one write. Without it, and for an empty id, every write gets an id of its
// own, which its repetitions by this package share and the registry remembers for half a minute. An
// error OUTCOME_UNKNOWN has the id, whoever made it, as request_id in its metadata.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// requestID returns the id for a write.
func requestID(ctx context.Context) string {
	if id, _ := ctx.Value(requestIDKey{}).(string); id != "" {
		return id
	}
	return requestid.New()
}

// requestIDOf returns the id that a request carries, empty if it has none.
func requestIDOf(request any) string {
	if r, ok := request.(interface{ GetRequestId() string }); ok {
		return r.GetRequestId()
	}
	return ""
}

// wait returns how long the registry may hold a blocking read, or somebody who waits for a lock.
func wait(request any) time.Duration {
	if r, ok := request.(*registryv1.AcquireLockRequest); ok {
		return max(0, r.GetWait().AsDuration())
	}
	blocking, ok := request.(interface {
		GetIndex() uint64
		GetWait() *durationpb.Duration
	})
	switch {
	case !ok || blocking.GetIndex() == 0:
		return 0
	case blocking.GetWait() == nil:
		return defaultWait
	default:
		return max(0, blocking.GetWait().AsDuration())
	}
}

// repeatable reports whether a failed call may be sent again: it is idempotent, or carries the
// request id that makes it count once, or was refused before anything was done about it.
func repeatable(err error, fullMethod string, request any) bool {
	identified := requestIDOf(request) != ""
	switch fault.CodeOf(err) {
	case fault.Unavailable:
		if untrusted(err) {
			return false
		}
		return identified || method.IsIdempotent(fullMethod) || fault.ReasonOf(err) != ""
	case fault.Unknown:
		return (identified || method.IsIdempotent(fullMethod)) && fault.ReasonOf(err) == fault.ReasonOutcomeUnknown
	default:
		return false
	}
}

// untrusted recognises a handshake that will fail again however often it is tried. gRPC leaves
// nothing but the text of such an error.
func untrusted(err error) bool {
	return fault.ReasonOf(err) == "" && (strings.Contains(err.Error(), "x509: ") || strings.Contains(err.Error(), "tls: "))
}

// sleep waits before another try, longer if the server asked for it. It answers false when there is
// no time for one.
func sleep(ctx context.Context, pause time.Duration, err error, until time.Time) bool {
	if f, ok := fault.As(err); ok {
		pause = max(pause, f.RetryAfter())
	}
	if time.Now().Add(pause).After(until) {
		return false
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// explain adds what only this side knows: who did not answer, and which setting may be the cause.
func (r *retrying) explain(ctx context.Context, err error) error {
	f, ok := fault.As(err)
	if !ok || f.Reason() != "" {
		return err
	}
	switch f.Code() {
	case fault.Unavailable:
		remedy := "check that " + EnvAddr + " names a gateway (https://host:8500) and that it is running"
		if untrusted(err) {
			remedy = "check that " + EnvCAFile + " holds the roots of this federation, and that " + EnvAddr + " uses a name of the gateway's certificate"
		}
		return fault.New(fault.Unavailable, ReasonUnreachable, "no answer from %s: %s", r.gateways, f.Message()).WithRemedy(remedy)
	case fault.DeadlineExceeded:
		return fault.New(f.Code(), "", "no answer from %s in time", r.gateways).
			WithRemedy("allow more time, or look at the datacenter's health").Wrap(context.DeadlineExceeded)
	case fault.Canceled:
		cause := ctx.Err()
		if cause == nil {
			cause = context.Canceled
		}
		return fault.New(f.Code(), "", "gave up waiting for %s", r.gateways).Wrap(cause)
	case fault.Unauthenticated:
		if f.Remedy() == "" {
			return f.WithRemedy("check " + EnvToken)
		}
	}
	return err
}

// invalid is for what this package refuses by itself.
func invalid(field, format string, args ...any) error {
	return fmt.Errorf("konsul: %w", fault.Invalid(field, format, args...))
}
