package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/obs"
)

// streamWorkers is how many goroutines per processor keep the stack that a call needs. Calls that
// find all of them busy get one of their own.
const streamWorkers = 64

// ServerParams is what a server is made of.
type ServerParams struct {
	// Name is the program's, as the contracts and metrics have it.
	Name     string
	Identity identity.Source
	// Access is who may call what; nil: what the contracts say of the server of that name.
	Access Access
	Tokens TokenChecker // may be nil when no rule has TokenPeers
	// Refused hears of every call that is turned away at the door; may be nil. It must not wait.
	Refused   func(ctx context.Context, fullMethod string, err error)
	Telemetry *obs.Telemetry
	// Unary are interceptors behind the door, the first outermost.
	Unary []grpc.UnaryServerInterceptor
	// Limits is what callers may take; zero: the defaults.
	Limits config.Limits
	// MaxMessageBytes bounds a request; 0: it is small, as most are.
	MaxMessageBytes int
	Options         []grpc.ServerOption
}

// Server is a gRPC server with its health service. Services are registered before it serves.
type Server struct {
	*grpc.Server
	// Health is what the standard health service answers; "" is the whole server, and starts as
	// NOT_SERVING.
	Health *health.Server

	door  interceptor
	inner grpc.UnaryServerInterceptor
}

// NewServer makes a server that speaks mutual TLS, admits whom the contracts name, recovers from
// panics, turns faults into statuses, and counts, traces and logs every call.
func NewServer(p ServerParams) (*Server, error) {
	metrics, err := newServerMetrics(p.Telemetry.Metrics)
	if err != nil {
		return nil, fmt.Errorf("register rpc metrics: %w", err)
	}
	// Whoever waits for an answer asks whether this server is there, from other datacenters too.
	access := Access{healthv1.Health_ServiceDesc.ServiceName: {Peers: []Peer{{Service: "*", AnyDC: true}}}}
	tlsOptions := identity.ServerOptions{NextProtos: []string{"h2"}}
	stated := p.Access == nil
	if stated {
		if p.Access, err = AccessOf(p.Name, p.Tokens != nil); err != nil {
			return nil, err
		}
	}
	for key, rule := range p.Access {
		access[key] = rule
		if rule.Anyone {
			tlsOptions.ClientCert = identity.VerifyIfGiven
		}
	}
	chain := interceptor{
		guard:   guard{access: access, stated: stated, tokens: p.Tokens, own: p.Identity.ID(), refused: p.Refused},
		log:     p.Telemetry.Log,
		metrics: metrics,
		name:    p.Name,
		bounds: newBounds(cmp.Or(p.Limits, config.DefaultLimits()), cmp.Or(p.MaxMessageBytes, smallMessage), func(limit string) {
			metrics.limited.WithLabelValues(p.Name, limit).Inc()
		}),
	}
	if !p.Telemetry.Traces() {
		chain.propagator = p.Telemetry.Propagator
	}
	options := append([]grpc.ServerOption{
		grpc.Creds(peerCredentials{credentials.NewTLS(p.Identity.ServerTLS(tlsOptions)), chain.bounds}),
		// Of services that were not registered by RegisterService: those call the interceptors by
		// themselves.
		grpc.ChainUnaryInterceptor(append([]grpc.UnaryServerInterceptor{chain.unary}, p.Unary...)...),
		grpc.ChainStreamInterceptor(chain.stream),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveTime / 2, PermitWithoutStream: true}),
		grpc.ConnectionTimeout(connectTimeout),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.NumStreamWorkers(uint32(streamWorkers * runtime.GOMAXPROCS(0))), //nolint:gosec // a small number
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
	}, append(chain.bounds.options(), p.Options...)...)
	options = append(serverTracing(p.Telemetry), options...)
	s := &Server{
		Server: grpc.NewServer(options...), Health: health.NewServer(),
		door: chain, inner: inRow(p.Unary),
	}
	s.Health.SetServingStatus("", healthv1.HealthCheckResponse_NOT_SERVING)
	healthv1.RegisterHealthServer(s, s.Health)
	return s, nil
}

// RegisterService implements grpc.ServiceRegistrar. Calls are admitted before their request is
// read.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	own := *desc
	own.Methods = slices.Clone(desc.Methods)
	for i := range own.Methods {
		m := &own.Methods[i]
		fullMethod, handler := "/"+desc.ServiceName+"/"+m.MethodName, m.Handler
		m.Handler = func(impl any, ctx context.Context, receive func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			return s.door.call(ctx, fullMethod, func(ctx context.Context) (any, error) {
				held, err := s.door.bounds.begin(ctx)
				if err != nil {
					return nil, err
				}
				defer held.end()
				return handler(impl, ctx, func(message any) error {
					request := sized{message: message}
					err := receive(&request)
					held.received(request.bytes)
					return cmp.Or(err, request.undecodable(fullMethod))
				}, s.inner)
			})
		}
	}
	s.Server.RegisterService(&own, impl)
}

// inRow returns interceptors as one, the first outermost.
func inRow(interceptors []grpc.UnaryServerInterceptor) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		for _, interceptor := range slices.Backward(interceptors) {
			next := handler
			handler = func(ctx context.Context, req any) (any, error) { return interceptor(ctx, req, info, next) }
		}
		return handler(ctx, req)
	}
}

// Serve serves calls on listener until the server is stopped, which is no error, also if that came
// first. It fails at once when a method is registered of which the contracts do not say who may
// call it.
func (s *Server) Serve(listener net.Listener) error {
	if err := s.door.guard.covers(s.GetServiceInfo()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go s.door.bounds.sweep(ctx)
	if err := s.Server.Serve(listener); !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// Serving reports the server as healthy.
func (s *Server) Serving() { s.Health.SetServingStatus("", healthv1.HealthCheckResponse_SERVING) }

// Drain reports not serving, lets calls in flight finish until ctx ends, then cuts what is left.
// Streams that would never end are cut at the end of ctx.
func (s *Server) Drain(ctx context.Context) {
	s.Health.Shutdown()
	done := make(chan struct{})
	go func() {
		s.GracefulStop()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		s.Stop()
		<-done
	}
}

type interceptor struct {
	guard   guard
	log     *slog.Logger
	metrics *serverMetrics
	name    string
	bounds  *bounds
	// propagator finds the trace a call belongs to; nil when spans are made of calls, which does so
	// too.
	propagator propagation.TextMapPropagator
}

func (i interceptor) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	return i.call(ctx, info.FullMethod, func(ctx context.Context) (any, error) { return handler(ctx, req) })
}

// call returns a call by do, once it is admitted, and sees to its telemetry.
func (i interceptor) call(ctx context.Context, fullMethod string, do func(context.Context) (any, error)) (resp any, err error) {
	start := time.Now()
	ctx = received(ctx, i.propagator)
	defer func() { err = i.finish(ctx, fullMethod, start, recover(), err) }()
	admitted, err := i.guard.admit(ctx, fullMethod)
	if err != nil {
		return nil, err
	}
	return do(admitted)
}

func (i interceptor) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	start := time.Now()
	ctx := received(stream.Context(), i.propagator)
	defer func() { err = i.finish(ctx, info.FullMethod, start, recover(), err) }()
	admitted, err := i.guard.admit(ctx, info.FullMethod)
	if err != nil {
		return err
	}
	held, err := i.bounds.begin(admitted)
	if err != nil {
		return err
	}
	own := &admittedStream{ServerStream: stream, ctx: admitted, method: info.FullMethod, held: held}
	defer own.end()
	return handler(srv, own)
}

type admittedStream struct {
	grpc.ServerStream
	//nolint:containedctx // grpc hands a stream's context out by method; this is how interceptors replace it
	ctx    context.Context
	method string

	mu   sync.Mutex // guards held: a handler may return while a goroutine of its own still receives
	held held
}

// RecvMsg implements grpc.ServerStream. The first message is what the call holds of its server.
func (s *admittedStream) RecvMsg(m any) error {
	message := sized{message: m}
	err := s.ServerStream.RecvMsg(&message)
	s.mu.Lock()
	s.held.received(message.bytes)
	s.mu.Unlock()
	return cmp.Or(err, message.undecodable(s.method))
}

func (s *admittedStream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held.end()
}

// Context implements grpc.ServerStream.
func (s *admittedStream) Context() context.Context { return s.ctx }

// finish turns the outcome of a call into a status, and says what happened.
func (i interceptor) finish(ctx context.Context, method string, start time.Time, panicked any, err error) error {
	if panicked != nil {
		err = fmt.Errorf("panic: %v\n%s", panicked, debug.Stack())
	}
	st := ToStatus(err)
	elapsed := time.Since(start)
	i.metrics.observe(i.name, method, st.Code(), elapsed)
	if err == nil {
		if i.log.Enabled(ctx, slog.LevelDebug) {
			i.log.DebugContext(ctx, "call served", obs.KeyMethod, method, obs.KeyDuration, elapsed)
		}
		return nil
	}
	peerID, _ := PeerID(ctx)
	attrs := []any{obs.KeyMethod, method, obs.KeyCode, st.Code().String(), obs.KeyDuration, elapsed, obs.KeyPeer, peerID.String(), obs.KeyError, err}
	if st.Code() == codes.Internal {
		// The caller gets no inner text; the request id leads whoever asks to this line.
		requestID := uuid.NewString()
		i.log.ErrorContext(ctx, "call failed", append(attrs, obs.KeyRequestID, requestID)...)
		st = status.New(codes.Internal, "internal error; request id "+requestID)
	} else {
		i.log.DebugContext(ctx, "call refused", attrs...)
	}
	return st.Err()
}
