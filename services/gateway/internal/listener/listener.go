// Package listener is the mesh port: it reads each connection's server name and passes the
// connection on.
//
// Control traffic and everything for other datacenters is passed on as it comes, never decrypted.
// Only connections to the own datacenter's workloads end here. Every connection is bounded: in the
// time it may take to say whom it wants, in silence, and in number, also by source address. A Port
// serves any number of connections at once.
package listener

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"konsul.dev/pkg/admission"
	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/loopguard"
	"konsul.dev/pkg/obs"
	"konsul.dev/services/gateway/internal/balance"
	"konsul.dev/services/gateway/internal/route"
	"konsul.dev/services/gateway/internal/sni"
	"konsul.dev/services/gateway/internal/splice"
)

// Reasons for not passing a connection on, beside the route's.
const (
	reasonNotTLS     = "not_tls"
	reasonNoName     = "no_server_name"
	reasonHello      = "bad_client_hello"
	reasonDenied     = "denied"
	reasonNoInstance = "no_instance"
	reasonNoBackend  = "no_backend"
	reasonOwnAddress = "own_address"
)

// unknown is the datacenter of a caller that cannot be told.
const unknown = "unknown"

// Settings bound what a connection may cost.
type Settings struct {
	HandshakeTimeout time.Duration
	DialTimeout      time.Duration
	IdleTimeout      time.Duration
	HalfCloseTimeout time.Duration
	Limits           admission.Limits
}

// Params is what the mesh port is made of.
type Params struct {
	Settings   Settings
	Datacenter string
	// Table returns what is known of the federation now.
	Table func() *route.Table
	// Instances returns the addresses of a local service's passing instances.
	Instances func(ctx context.Context, service string) ([]string, error)
	// WorkloadTLS ends connections to local workloads.
	WorkloadTLS *tls.Config
	Balancer    *balance.Balancer
	// Loops refuses to dial the gateway's own ports.
	Loops   *loopguard.Guard
	Metrics *Metrics
	Log     *slog.Logger
}

// Port serves the mesh port. Serve and Drain are called once each.
type Port struct {
	p       Params
	gate    *admission.Gate
	splicer *splice.Splicer
	origins origins

	ctx      context.Context //nolint:containedctx // ends every connection; a Port is as long-lived as they are
	cut      context.CancelFunc
	draining chan struct{}
	wg       sync.WaitGroup
}

// New returns a port that serves nothing yet.
func New(p Params) *Port {
	ctx, cut := context.WithCancel(context.Background())
	return &Port{
		p: p, gate: admission.New(p.Settings.Limits, p.Metrics.refused), splicer: splice.New(),
		ctx: ctx, cut: cut, draining: make(chan struct{}),
	}
}

// Serve accepts connections until listener is closed.
func (l *Port) Serve(listener net.Listener) error {
	retry := backoff.New(5*time.Millisecond, time.Second)
	for {
		conn, err := listener.Accept()
		if err == nil {
			retry.Reset()
			l.admit(conn)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		// Out of file descriptors, or a client that left early: later connections may fare better.
		l.p.Log.Warn("cannot accept on the mesh port", obs.KeyError, err)
		if retry.Wait(l.ctx) != nil {
			return nil
		}
	}
}

func (l *Port) admit(conn net.Conn) {
	ticket, ok := l.gate.Admit(conn)
	if !ok {
		_ = conn.Close()
		return
	}
	l.wg.Go(func() {
		defer ticket.Release()
		defer func() { _ = conn.Close() }()
		defer context.AfterFunc(l.ctx, func() { _ = conn.Close() })()
		l.handle(conn, ticket)
	})
}

// Drain waits for the open connections, closing those that fall quiet, until ctx ends; then it cuts
// the rest. Close the listener before.
func (l *Port) Drain(ctx context.Context) {
	close(l.draining)
	done := make(chan struct{})
	go func() {
		l.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		l.p.Log.Info("connections cut at the end of the drain", "connections", l.gate.Open())
	}
	l.cut()
	<-done
}

// handle reads the server name and does what the table says. The caller closes conn.
func (l *Port) handle(conn net.Conn, ticket *admission.Ticket) {
	if err := conn.SetDeadline(time.Now().Add(l.p.Settings.HandshakeTimeout)); err != nil {
		return // it is closed already
	}
	hello, err := sni.Peek(conn)
	switch {
	case !ticket.Established():
		return // it had to make room, and is counted as such
	case err != nil:
		l.refuseHello(conn, err)
		return
	}
	decision := l.p.Table().Decide(hello.ServerName)
	switch decision.Kind {
	case route.Control:
		l.forward(conn, hello, decision, l.origins.of(conn))
	case route.Remote:
		l.forward(conn, hello, decision, decision.Datacenter)
	case route.Workload:
		l.terminate(conn, hello, decision.Service)
	case route.Reject:
		l.reject(conn, string(decision.Reason))
		_ = sni.Refuse(conn, sni.AlertUnrecognizedName) // a courtesy; the client may have gone
	}
}

func (l *Port) refuseHello(conn net.Conn, err error) {
	switch {
	case errors.Is(err, sni.ErrNotTLS):
		l.reject(conn, reasonNotTLS)
	case errors.Is(err, sni.ErrNoName):
		l.reject(conn, reasonNoName)
		_ = sni.Refuse(conn, sni.AlertUnrecognizedName)
	default:
		l.reject(conn, reasonHello)
	}
}

// forward passes a connection on as it came.
func (l *Port) forward(conn net.Conn, hello sni.Hello, decision route.Decision, other string) {
	backend, closed, reason := l.dial(l.ctx, decision.Addresses)
	if backend == nil {
		l.reject(conn, reason)
		_ = sni.Refuse(conn, sni.AlertInternalError)
		return
	}
	defer closed()
	if decision.Kind == route.Remote {
		l.origins.learn(backend, decision.Datacenter)
	}
	l.join(conn, backend, hello.Read, other, decision.Kind == route.Remote)
}

// terminate ends the TLS of a connection to a local workload and passes its plaintext to an
// instance.
func (l *Port) terminate(conn net.Conn, hello sni.Hello, service string) {
	secured := tls.Server(sni.Replay(conn, hello), l.p.WorkloadTLS)
	if err := secured.HandshakeContext(l.ctx); err != nil {
		l.p.Log.Debug("caller of a workload refused", "workload", service, obs.KeyError, err)
		l.reject(conn, reasonDenied)
		return
	}
	caller, err := identity.PeerFromState(secured.ConnectionState())
	if err != nil {
		l.reject(conn, reasonDenied)
		return
	}
	lookup, cancel := context.WithTimeout(l.ctx, l.p.Settings.DialTimeout)
	defer cancel()
	addresses, err := l.p.Instances(lookup, service)
	if err != nil {
		l.p.Log.Warn("instances of a workload not found", "workload", service, obs.KeyError, err)
	}
	if len(addresses) == 0 {
		l.reject(conn, reasonNoInstance)
		return
	}
	backend, closed, reason := l.dial(l.ctx, addresses)
	if backend == nil {
		l.reject(conn, reason)
		return
	}
	defer closed()
	l.join(secured, backend, nil, caller.Datacenter, false)
}

func (l *Port) reject(conn net.Conn, reason string) {
	l.p.Metrics.rejected.WithLabelValues(reason).Inc()
	l.p.Log.Debug("connection rejected", obs.KeyReason, reason, obs.KeyAddress, conn.RemoteAddr().String())
}

// dial reaches one of the addresses, in the balancer's order. closed must be called when the
// connection has ended. Without one, reason says why.
func (l *Port) dial(ctx context.Context, addresses []string) (conn net.Conn, closed func(), reason string) {
	// A resolver of its own asks anew; a shared one joins a question for a name that is on its way.
	dialer := net.Dialer{Resolver: new(net.Resolver), Timeout: l.p.Settings.DialTimeout, KeepAliveConfig: KeepAlive(), Control: l.p.Loops.Control}
	reason = reasonNoBackend
	for _, address := range l.p.Balancer.Order(addresses) {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			return conn, l.p.Balancer.Opened(address), ""
		}
		if errors.Is(err, loopguard.ErrOwnAddress) {
			reason = reasonOwnAddress
		}
		if ctx.Err() != nil {
			break
		}
		if l.p.Balancer.Failed(address) {
			l.p.Log.Warn("backend does not answer", obs.KeyAddress, address, obs.KeyError, fmt.Errorf("dial: %w", err))
		}
	}
	return nil, nil, reason
}

// KeepAlive returns how peers that vanished without a word are found: within half a minute.
func KeepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}
}
