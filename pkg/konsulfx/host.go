package konsulfx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"

	"konsul.dev/pkg/admission"
	"konsul.dev/pkg/config"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/lifecycle"
	"konsul.dev/pkg/rpc"
)

// undoTimeout bounds the undoing of a start that failed, which may have failed because its time ran
// out.
const undoTimeout = 5 * time.Second

// HostParams is what a host is made of.
type HostParams struct {
	// Name is the service's name in identities, logs and metrics.
	Name    string
	Config  config.Base
	Process Process
	// DNSNames and IPs are what the identity is to cover besides the name.
	DNSNames []string
	IPs      []net.IP
}

// Host is what services have in common: an identity, connections to other services, a gRPC port and
// loops. A service starts one, gives it handlers and loops, and stops it.
//
// Start, its steps and Stop belong to one goroutine at a time; Identity, Addr, Up and Go are safe
// for concurrent use in between.
type Host struct {
	HostParams

	loops    *lifecycle.Group
	up       context.Context
	quiesce  context.CancelFunc
	identity identity.Source
	conns    []*grpc.ClientConn
	server   *rpc.Server
	listener net.Listener
}

// NewHost returns a host that has not started.
func NewHost(p HostParams) *Host {
	up, quiesce := context.WithCancel(context.Background())
	return &Host{
		HostParams: p, up: up, quiesce: quiesce,
		loops: lifecycle.NewGroup(p.Process.Telemetry.Log, p.Process.Fail),
	}
}

// Start runs the steps of a service's start in their order; then it serves gRPC, if there is a
// server, and reports that as healthy. When a step fails, Start calls stop, which has five seconds
// even if ctx has ended, and returns the errors of both.
func (h *Host) Start(ctx context.Context, stop func(context.Context) error, steps ...func(context.Context) error) error {
	for _, step := range steps {
		if err := step(ctx); err != nil {
			undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
			defer cancel()
			return errors.Join(err, stop(undo))
		}
	}
	if h.server != nil {
		h.Go("serve", func(context.Context) error { return h.server.Serve(h.listener) })
		h.server.Serving()
	}
	return nil
}

// Enroll is the step that gets the identity: the process's if it has one, else one from the
// datacenter's ca, which is renewed from then on.
func (h *Host) Enroll(ctx context.Context) error {
	if h.Process.Identity != nil {
		h.identity = h.Process.Identity
		return nil
	}
	enrollment := identity.ConfigFor(h.Config, h.Name, h.Process.Telemetry)
	enrollment.DNSNames, enrollment.IPs = h.DNSNames, h.IPs
	enrolled, err := identity.Enroll(ctx, enrollment)
	if err != nil {
		return fmt.Errorf("enroll: %w", err)
	}
	h.identity = enrolled
	h.Go("renew identity", enrolled.Run)
	return nil
}

// Adopt sets the identity of a service that needs no ca.
func (h *Host) Adopt(source identity.Source) { h.identity = source }

// Identity returns who the service is; nil before Enroll or Adopt.
func (h *Host) Identity() identity.Source { return h.identity }

// Dial returns a connection to one of the datacenter's own services, which Close closes. Like
// rpc.Dial it does not wait.
func (h *Host) Dial(service string, addrs []string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	conn, err := rpc.Dial(addrs, rpc.ClientParams{
		Identity: h.identity, Want: identity.Want{Service: service}, Telemetry: h.Process.Telemetry, Options: options,
	})
	if err != nil {
		return nil, err
	}
	h.conns = append(h.conns, conn)
	return conn, nil
}

// NewServer makes the gRPC server from p, to which the host adds its name, identity, telemetry and
// limits. The service registers its handlers; it is served once the last step of Start has passed.
func (h *Host) NewServer(p rpc.ServerParams) (*rpc.Server, error) {
	p.Name, p.Identity, p.Telemetry, p.Limits = h.Name, h.identity, h.Process.Telemetry, h.Config.Server.Limits
	server, err := rpc.NewServer(p)
	if err != nil {
		return nil, err
	}
	h.server = server
	return server, nil
}

// Listen is the step that binds the gRPC port. field is the setting that names the address.
func (h *Host) Listen(field, address string) func(context.Context) error {
	return func(ctx context.Context) (err error) {
		h.listener, err = admission.Bind(ctx, net.ListenConfig{}, field, address)
		return err
	}
}

// Addr returns where gRPC is served, once bound.
func (h *Host) Addr() string { return h.listener.Addr().String() }

// Go starts a loop, which ends the process when it fails, and ends after the drain.
func (h *Host) Go(name string, loop func(context.Context) error) { h.loops.Go(name, loop) }

// Up is a context that ends when the service begins to stop. What would hold up the drain, such as
// a watch, ends with it.
func (h *Host) Up() context.Context { return h.up }

// Stop ends the service: Halt, then Close.
func (h *Host) Stop(ctx context.Context) error { return errors.Join(h.Halt(ctx), h.Close()) }

// Quiesce ends Up. Halt does so first.
func (h *Host) Quiesce() { h.quiesce() }

// Halt ends what runs: calls in flight, which have until ctx ends, then the loops.
func (h *Host) Halt(ctx context.Context) error {
	h.Quiesce()
	if h.server != nil {
		h.server.Drain(ctx)
	}
	return h.loops.Stop(ctx)
}

// Close closes the connections and the port.
func (h *Host) Close() error {
	var errs []error
	for _, conn := range h.conns {
		errs = append(errs, conn.Close())
	}
	h.conns = nil
	return errors.Join(append(errs, CloseListener(h.listener))...)
}

// CloseListener closes a listener that may be nil, or closed already.
func CloseListener(l net.Listener) error {
	if l == nil {
		return nil
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
