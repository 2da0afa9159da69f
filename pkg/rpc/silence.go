package rpc

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/obs"
)

// A server that is paused keeps its connections open and answers nothing. gRPC's keepalive notices
// after ten seconds at the least, and then only for the connection: so each connection of ours asks
// a server that owes an answer whether it is there, and gives up what waits for one that does not
// say so.
const (
	// quietAfter is how long a server that owes an answer may send nothing before it is asked, and
	// quietLong for servers that owe only what has been waited for long, such as changes that are
	// watched.
	quietAfter = 750 * time.Millisecond
	quietLong  = 5 * time.Second
	// pingTimeout is how long the answer may take.
	pingTimeout = 1500 * time.Millisecond
	// lookEvery is how often is looked who owes an answer, lookSeldom when nothing was asked
	// lately.
	lookEvery  = 250 * time.Millisecond
	lookSeldom = time.Second
)

var errSilent = errors.New("the server has fallen silent")

// silence watches the servers of one client connection.
type silence struct {
	log  *slog.Logger
	dial func(ctx context.Context, address string) (net.Conn, error)
	// conn is set before the first call.
	conn *grpc.ClientConn
	// born is what times are counted from: the wall clock may jump.
	born time.Time

	mu      sync.Mutex
	servers map[string]*listened
	// looking says that a look is due.
	looking bool
}

// listened is one server, known by its address.
type listened struct {
	owner   *silence
	address string
	// silent keeps new calls away; heard is when it last sent anything, since owner.born.
	silent atomic.Bool
	heard  atomic.Int64

	// These are guarded by owner.mu.
	waiting map[*flight]struct{}
	latest  time.Time // when the latest call began
	asked   time.Time // when it was last asked whether it is there
	asking  bool
}

// flight is a call that waits.
type flight struct {
	owner  *silence
	cancel context.CancelCauseFunc
	// server is where it went; guarded by owner.mu.
	server *listened
	// ping says that the call asks whether a server is there, and which.
	ping *listened
}

type flightKey struct{}

type silenceKey struct{}

func newSilence(log *slog.Logger, dial func(context.Context, string) (net.Conn, error)) *silence {
	return &silence{log: log, dial: dial, born: time.Now(), servers: map[string]*listened{}}
}

// options are how a connection comes to be watched.
func (s *silence) options() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"` + policy + `":{}}]}`),
		grpc.WithContextDialer(s.listen),
		grpc.WithChainUnaryInterceptor(s.unary), grpc.WithChainStreamInterceptor(s.stream),
	}
}

// address is what the resolver says of a server, for the balancer to find its way back here.
func (s *silence) address(addr string) resolver.Address {
	return resolver.Address{Addr: addr, Attributes: attributes.New(silenceKey{}, s)}
}

func (s *silence) server(address string) *listened {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.servers[address]
	if l == nil {
		l = &listened{owner: s, address: address, waiting: map[*flight]struct{}{}}
		s.servers[address] = l
	}
	return l
}

// listen opens a connection that notes when something came over it: a long answer is none until it
// is complete.
func (s *silence) listen(ctx context.Context, address string) (net.Conn, error) {
	conn, err := s.dial(ctx, address)
	if err != nil {
		return nil, err
	}
	return listenedConn{conn, s.server(address)}, nil
}

type listenedConn struct {
	net.Conn
	server *listened
}

// Read implements net.Conn.
func (c listenedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.server.heard.Store(int64(time.Since(c.server.owner.born)))
	}
	return n, err
}

func (s *silence) unary(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, f := s.begin(ctx)
	defer f.end()
	return f.explain(ctx, invoke(ctx, method, req, reply, conn, opts...))
}

func (s *silence) stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, f := s.begin(ctx)
	stream, err := streamer(ctx, desc, conn, method, opts...)
	if err != nil {
		defer f.end()
		return nil, f.explain(ctx, err)
	}
	context.AfterFunc(ctx, f.end)
	return listenedStream{stream, f, desc.ServerStreams}, nil
}

type listenedStream struct {
	grpc.ClientStream
	flight *flight
	many   bool
}

// RecvMsg implements grpc.ClientStream.
func (s listenedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil {
		err = s.flight.explain(s.Context(), err)
	}
	if err != nil || !s.many {
		s.flight.end()
	}
	return err
}

func (s *silence) begin(ctx context.Context) (context.Context, *flight) {
	if f, ok := ctx.Value(flightKey{}).(*flight); ok && f.ping != nil && f.owner == s {
		f.cancel = func(error) {}
		return ctx, f
	}
	ctx, cancel := context.WithCancelCause(ctx)
	f := &flight{owner: s, cancel: cancel}
	return context.WithValue(ctx, flightKey{}, f), f
}

// end takes a call off what is waited for.
func (f *flight) end() {
	f.owner.mu.Lock()
	if f.server != nil {
		delete(f.server.waiting, f)
	}
	f.owner.mu.Unlock()
	f.cancel(nil)
}

// explain returns the error of a call: one that was given up broke like a connection, which
// promises nothing.
func (f *flight) explain(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errSilent) {
		return status.Error(codes.Unavailable, "the server has fallen silent")
	}
	return err
}

// went notes where a call goes.
func (f *flight) went(to *listened) {
	s := f.owner
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.server != nil {
		delete(f.server.waiting, f)
	}
	f.server = to
	if f.ping != nil {
		return
	}
	now := time.Now()
	if len(to.waiting) == 0 {
		to.asked = now // It owed nothing until now.
	}
	to.waiting[f], to.latest = struct{}{}, now
	if !s.looking {
		s.looking = true
		time.AfterFunc(lookEvery, s.look)
	}
}

// look asks the servers that owe an answer and have been quiet, and those that were silent.
func (s *silence) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, again, lately := time.Now(), false, false
	for _, l := range s.servers {
		silent := l.silent.Load()
		if len(l.waiting) == 0 && !silent && !l.asking { // Being asked, it may be found silent.
			continue
		}
		again = true
		lately = lately || now.Sub(l.latest) < quietLong
		patience := min(quietLong, max(quietAfter, now.Sub(l.latest)))
		if silent {
			patience = quietAfter
		}
		if !l.asking && now.Sub(l.asked) >= patience && (silent || now.Sub(s.born)-time.Duration(l.heard.Load()) >= patience) {
			l.asking, l.asked = true, now
			go s.ask(l)
		}
	}
	s.looking = again
	switch {
	case lately:
		time.AfterFunc(lookEvery, s.look)
	case again:
		time.AfterFunc(lookSeldom, s.look)
	}
}

// ask asks a server whether it is there. Whatever it answers will do.
func (s *silence) ask(l *listened) {
	began := time.Since(s.born)
	ping := &flight{owner: s, ping: l}
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), flightKey{}, ping), pingTimeout)
	defer cancel()
	_, err := healthv1.NewHealthClient(s.conn).Check(ctx, &healthv1.HealthCheckRequest{})
	s.mu.Lock()
	defer s.mu.Unlock()
	l.asking = false
	// Without a connection there is nobody to be silent: the transport says so by itself.
	late := fault.CodeOf(err) == fault.DeadlineExceeded && ping.server != nil && time.Duration(l.heard.Load()) < began
	if late == l.silent.Load() {
		return
	}
	l.silent.Store(late)
	if !late {
		s.log.Info("a server that was silent is heard again", obs.KeyAddress, l.address)
		return
	}
	s.log.Warn("a server answers nothing and keeps its connection; calls go elsewhere", obs.KeyAddress, l.address)
	for f := range l.waiting {
		f.cancel(errSilent)
	}
}

// policy is the name of the balancer that gRPC finds our picker by.
const policy = "konsul_listening"

//nolint:gochecknoinits // gRPC knows balancers by name only, and takes them only here; this one keeps no state
func init() {
	balancer.Register(base.NewBalancerBuilder(policy, listening{}, base.Config{}))
}

// listening spreads calls over the servers that are connected and not silent.
type listening struct{}

// Build implements base.PickerBuilder.
func (listening) Build(info base.PickerBuildInfo) balancer.Picker {
	if len(info.ReadySCs) == 0 {
		return base.NewErrPicker(balancer.ErrNoSubConnAvailable)
	}
	p := &picker{}
	for conn, about := range info.ReadySCs {
		owner, _ := about.Address.Attributes.Value(silenceKey{}).(*silence)
		p.servers = append(p.servers, ready{conn, owner.server(about.Address.Addr)})
	}
	return p
}

type ready struct {
	conn   balancer.SubConn
	server *listened
}

type picker struct {
	servers []ready
	next    atomic.Uint32
}

// Pick implements balancer.Picker.
func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	f, _ := info.Ctx.Value(flightKey{}).(*flight)
	first := int(p.next.Add(1))
	for i := range p.servers {
		to := p.servers[(first+i)%len(p.servers)]
		if f != nil && f.ping != nil && f.ping != to.server || (f == nil || f.ping == nil) && to.server.silent.Load() {
			continue
		}
		if f != nil {
			f.went(to.server)
		}
		return balancer.PickResult{SubConn: to.conn}, nil
	}
	return balancer.PickResult{}, status.Error(codes.Unavailable, "every server that is connected has fallen silent")
}
