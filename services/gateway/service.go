package gateway

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/lifecycle"
	"konsul.dev/pkg/obs"
	"konsul.dev/services/gateway/internal/listener"
	"konsul.dev/services/gateway/internal/restedge"
	"konsul.dev/services/gateway/internal/route"
	"konsul.dev/services/gateway/internal/topology"
)

// Deps is what a gateway takes from its process.
type Deps struct {
	Telemetry *obs.Telemetry
	Clock     clock.Clock
	// Fail is told once when a loop fails; it should end the process.
	Fail func(error)
	// Ready answers what of the process is not ready, for /readyz; nil: the gateway alone counts.
	Ready func(context.Context) map[string]string
	// Metrics serves the process's metrics below /metrics.
	Metrics http.Handler
	// Identity is who the gateway is; nil: it enrolls with the datacenter's ca.
	Identity identity.Source
}

// Service is a gateway. Start is called once, then Stop; the rest is safe for concurrent use in between.
type Service struct {
	cfg      Config
	deps     Deps
	group    *lifecycle.Group
	identity identity.Source
	serving  atomic.Bool
	table    atomic.Pointer[route.Table]
	topology *topology.Watcher
	writes   *writes

	meshListener net.Listener
	edgeListener net.Listener
	conns        []*grpc.ClientConn
	mesh         *listener.Port
	edge         *restedge.Edge
	stop         sync.Once
}

// New answers a gateway that does nothing yet, or everything that is wrong with its configuration.
func New(cfg Config, deps Deps) (*Service, error) {
	cfg.Normalize()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, deps: deps, group: lifecycle.NewGroup(deps.Telemetry.Log, deps.Fail)}
	if s.deps.Ready == nil {
		s.deps.Ready = s.readiness
	}
	return s, nil
}

// Start binds both ports, gets an identity and serves. It waits for no other service but the ca.
func (s *Service) Start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop(ctx))
		}
	}()
	// Ports first: that one is taken should not take as long to learn as the ca takes to come up.
	if s.meshListener, err = bind(ctx, "gateway.listen", s.cfg.Gateway.Listen); err != nil {
		return err
	}
	if s.edgeListener, err = bind(ctx, "gateway.http_listen", s.cfg.Gateway.HTTPListen); err != nil {
		return err
	}
	if err := s.enroll(ctx); err != nil {
		return err
	}
	if err := s.assemble(ctx); err != nil {
		return err
	}
	s.group.Go("mesh port", func(context.Context) error { return s.mesh.Serve(s.meshListener) })
	s.group.Go("edge", func(context.Context) error { return s.edge.Serve(s.edgeListener) })
	s.group.Go("watch gossip", s.topology.WatchGossip)
	s.group.Go("poll registry", s.topology.PollRegistry)
	s.group.Go("ask for a leader", s.writes.run)
	s.serving.Store(true)
	return nil
}

func bind(ctx context.Context, field, address string) (net.Listener, error) {
	port, err := (&net.ListenConfig{KeepAliveConfig: listener.KeepAlive()}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "PORT_UNAVAILABLE", "cannot listen on %s", address).
			WithField(field).WithRemedy("stop what uses the port, or choose another address").Wrap(err)
	}
	return port, nil
}

func (s *Service) enroll(ctx context.Context) error {
	if s.identity = s.deps.Identity; s.identity != nil {
		return nil
	}
	enrollment := identity.ConfigFor(s.cfg.Base, Name, s.deps.Telemetry)
	enrollment.DNSNames, enrollment.IPs = s.cfg.names()
	enrolled, err := identity.Enroll(ctx, enrollment)
	if err != nil {
		return err
	}
	s.identity = enrolled
	s.group.Go("renew identity", enrolled.Run)
	return nil
}

// Identity answers who the gateway is; nil before Start.
func (s *Service) Identity() identity.Source { return s.identity }

// Ready answers nil while both ports serve, and why not otherwise.
func (s *Service) Ready(context.Context) error {
	if !s.serving.Load() {
		return errors.New("not started, or draining")
	}
	return nil
}

func (s *Service) readiness(ctx context.Context) map[string]string {
	if err := s.Ready(ctx); err != nil {
		return map[string]string{Name: err.Error()}
	}
	return nil
}

// Addrs answers where the two ports are bound; call it after Start.
func (s *Service) Addrs() (mesh, edge string) {
	return s.meshListener.Addr().String(), s.edgeListener.Addr().String()
}

// Stop takes no more connections, gives the open ones gateway.drain_timeout, and ends. It undoes a
// Start that failed half-way, too. Only the first call does anything.
func (s *Service) Stop(ctx context.Context) (err error) {
	s.stop.Do(func() { err = s.shutdown(ctx) })
	return err
}

func (s *Service) shutdown(ctx context.Context) error {
	s.serving.Store(false)
	drain, cancel := context.WithTimeout(ctx, s.cfg.Gateway.DrainTimeout)
	defer cancel()
	errs := []error{closeListener(s.meshListener), closeListener(s.edgeListener)}
	var both sync.WaitGroup
	if s.mesh != nil {
		both.Go(func() { s.mesh.Drain(drain) })
	}
	if s.edge != nil {
		both.Go(func() { s.edge.Drain(drain) })
	}
	both.Wait()
	errs = append(errs, s.group.Stop(ctx))
	for _, conn := range s.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

func closeListener(l net.Listener) error {
	if l == nil {
		return nil
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
