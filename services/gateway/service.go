package gateway

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"konsul.dev/pkg/admission"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/services/gateway/internal/listener"
	"konsul.dev/services/gateway/internal/restedge"
	"konsul.dev/services/gateway/internal/route"
	"konsul.dev/services/gateway/internal/topology"
)

// Deps is what a gateway takes from its process.
type Deps struct {
	konsulfx.Process

	// Ready returns what of the process is not ready, for /readyz; nil: the gateway alone counts.
	Ready func(context.Context) map[string]string
	// Metrics serves the process's metrics below /metrics.
	Metrics http.Handler
}

// Service is a gateway. Start is called once, then Stop; the rest is safe for concurrent use in
// between.
type Service struct {
	cfg      Config
	deps     Deps
	host     *konsulfx.Host
	serving  atomic.Bool
	table    atomic.Pointer[route.Table]
	topology *topology.Watcher
	writes   *writes

	meshListener net.Listener
	edgeListener net.Listener
	mesh         *listener.Port
	edge         *restedge.Edge
	stop         sync.Once
}

// New returns a gateway that does nothing yet, or everything that is wrong with its configuration.
func New(cfg Config, deps Deps) (*Service, error) {
	cfg.Normalize()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	params := konsulfx.HostParams{Name: Name, Config: cfg.Base, Process: deps.Process}
	params.DNSNames, params.IPs = cfg.names()
	s := &Service{cfg: cfg, deps: deps, host: konsulfx.NewHost(params)}
	if s.deps.Ready == nil {
		s.deps.Ready = s.readiness
	}
	return s, nil
}

// Start binds both ports, gets an identity and serves. It waits for no other service but the ca.
func (s *Service) Start(ctx context.Context) error {
	return s.host.Start(ctx, s.Stop,
		// Ports first: that one is taken should not take as long to learn as the ca takes to come
		// up.
		s.bind,
		s.host.Enroll,
		s.assemble,
		s.run,
	)
}

func (s *Service) bind(ctx context.Context) (err error) {
	how := net.ListenConfig{KeepAliveConfig: listener.KeepAlive()}
	if s.meshListener, err = admission.Bind(ctx, how, "gateway.listen", s.cfg.Gateway.Listen); err != nil {
		return err
	}
	s.edgeListener, err = admission.Bind(ctx, how, "gateway.http_listen", s.cfg.Gateway.HTTPListen)
	return err
}

func (s *Service) run(context.Context) error {
	s.host.Go("mesh port", func(context.Context) error { return s.mesh.Serve(s.meshListener) })
	s.host.Go("edge", func(context.Context) error { return s.edge.Serve(s.edgeListener) })
	s.host.Go("watch gossip", s.topology.WatchGossip)
	s.host.Go("poll registry", s.topology.PollRegistry)
	s.host.Go("ask for a leader", s.writes.run)
	s.serving.Store(true)
	return nil
}

// Identity returns who the gateway is; nil before Start.
func (s *Service) Identity() identity.Source { return s.host.Identity() }

// Ready returns nil while both ports serve, and why not otherwise.
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

// Addrs returns where the two ports are bound; call it after Start.
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
	errs := []error{konsulfx.CloseListener(s.meshListener), konsulfx.CloseListener(s.edgeListener)}
	var both sync.WaitGroup
	if s.mesh != nil {
		both.Go(func() { s.mesh.Drain(drain) })
	}
	if s.edge != nil {
		both.Go(func() { s.edge.Drain(drain) })
	}
	both.Wait()
	return errors.Join(append(errs, s.host.Stop(ctx))...)
}
