package failoverrouter

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	failoverrouterv1 "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/admission"
	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/lifecycle"
	"konsul.dev/pkg/loopguard"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	"konsul.dev/services/failover-router/internal/api"
	"konsul.dev/services/failover-router/internal/catalogue"
	"konsul.dev/services/failover-router/internal/proxy"
	"konsul.dev/services/failover-router/internal/resolve"
	"konsul.dev/services/failover-router/internal/topology"
)

// ReasonNoRegistry is the reason of a router without its registry.
const ReasonNoRegistry = "REGISTRY_UNREACHABLE"

const (
	// undoTimeout bounds the undoing of a start that failed, which may have failed because its time ran out.
	undoTimeout = 5 * time.Second
	// headerTimeout bounds how long an application may take to send a request's header.
	headerTimeout = 10 * time.Second
	// idleTimeout is how long an application's connection may wait for its next request.
	idleTimeout = 5 * time.Minute
	// proxyFileShare is the part of the files that the process may open which the proxy's callers take at most,
	// halfOpenShare the part of their connections that may not have sent a request yet.
	proxyFileShare, halfOpenShare = 8, 4
)

// Deps is what a failover-router takes from its process.
type Deps struct {
	Telemetry *obs.Telemetry
	Clock     clock.Clock
	// Fail is told once when a loop fails; it should end the process.
	Fail func(error)
	// Identity is who the router is; nil: it enrolls with the datacenter's ca.
	Identity identity.Source
}

// Service is a failover-router. Start and Stop are called once each, in this order; the rest is safe
// for concurrent use in between.
type Service struct {
	cfg      Config
	deps     Deps
	group    *lifecycle.Group
	identity identity.Source
	registry *grpc.ClientConn
	gossip   *grpc.ClientConn
	topology *topology.Topology
	resolver *resolve.Resolver

	server        *rpc.Server
	listener      net.Listener
	proxy         *proxy.Proxy
	proxyServer   *http.Server
	proxyListener net.Listener
	// stopping ends watches, which would hold up a drain.
	stopping context.CancelFunc
}

// New answers a router that does nothing yet, or everything that is wrong with its configuration.
func New(cfg Config, deps Deps) (*Service, error) {
	cfg.Normalize()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Service{
		cfg: cfg, deps: deps, stopping: func() {},
		group: lifecycle.NewGroup(deps.Telemetry.Log, deps.Fail),
	}, nil
}

// Start gets an identity, binds both ports and starts to follow gossip. It waits for no other service.
func (s *Service) Start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
			defer cancel()
			err = errors.Join(err, s.Stop(undo))
		}
	}()
	if err := s.enroll(ctx); err != nil {
		return err
	}
	if err := s.assemble(); err != nil {
		return err
	}
	watches, stopping := context.WithCancel(context.WithoutCancel(ctx))
	s.stopping = stopping
	if err := s.serveAPI(ctx, watches.Done()); err != nil {
		return err
	}
	if err := s.serveProxy(ctx); err != nil {
		return err
	}
	s.group.Go("follow gossip", s.topology.Run)
	s.server.Serving()
	return nil
}

func (s *Service) enroll(ctx context.Context) error {
	if s.deps.Identity != nil {
		s.identity = s.deps.Identity
		return nil
	}
	enrolled, err := identity.Enroll(ctx, identity.ConfigFor(s.cfg.Base, Name, s.deps.Telemetry))
	if err != nil {
		return fmt.Errorf("enroll: %w", err)
	}
	s.identity = enrolled
	s.group.Go("renew identity", enrolled.Run)
	return nil
}

// assemble makes the parts that need an identity.
func (s *Service) assemble() error {
	dial := func(service string, addrs []string) (*grpc.ClientConn, error) {
		return rpc.Dial(addrs, rpc.ClientParams{
			Identity: s.identity, Want: identity.Want{Service: service}, Telemetry: s.deps.Telemetry,
		})
	}
	var err error
	if s.registry, err = dial("registry", s.cfg.Endpoints.Registry); err != nil {
		return err
	}
	s.registry.Connect()
	if s.gossip, err = dial("wan-gossip", s.cfg.Endpoints.WANGossip); err != nil {
		return err
	}
	s.topology = topology.New(wangossipv1.NewDatacenterServiceClient(s.gossip), s.deps.Telemetry.Log)
	metrics, err := resolve.NewMetrics(s.deps.Telemetry.Metrics)
	if err != nil {
		return err
	}
	s.resolver = resolve.New(resolve.Params{
		Datacenter: s.cfg.Server.Datacenter,
		Catalogue: catalogue.New(catalogue.Params{
			Registry:   registryv1.NewCatalogServiceClient(s.registry),
			Datacenter: s.cfg.Server.Datacenter,
			Lease:      s.cfg.FailoverRouter.Lease,
			Clock:      s.deps.Clock,
		}),
		Topology: s.topology, Timeout: s.cfg.FailoverRouter.RemoteTimeout, Metrics: metrics,
	})
	return nil
}

func (s *Service) serveAPI(ctx context.Context, stopping <-chan struct{}) (err error) {
	s.server, err = rpc.NewServer(rpc.ServerParams{Name: Name, Identity: s.identity, Access: api.Access(), Telemetry: s.deps.Telemetry, Limits: s.cfg.Server.Limits})
	if err != nil {
		return err
	}
	failoverrouterv1.RegisterRouterServiceServer(s.server, api.New(api.Params{
		Resolver: s.resolver, Topology: s.topology, CacheTTL: s.cfg.FailoverRouter.CacheTTL, Stopping: stopping,
	}))
	s.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.FailoverRouter.Listen)
	if err != nil {
		return fmt.Errorf("listen on failover_router.listen %q: %w", s.cfg.FailoverRouter.Listen, err)
	}
	s.group.Go("serve", func(context.Context) error { return s.server.Serve(s.listener) })
	return nil
}

func (s *Service) serveProxy(ctx context.Context) error {
	settings := s.cfg.FailoverRouter
	metrics, err := proxy.NewMetrics(s.deps.Telemetry.Metrics)
	if err != nil {
		return err
	}
	files, err := admission.OpenFiles()
	if err != nil {
		return err
	}
	s.proxyListener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", settings.ProxyListen)
	if err != nil {
		return fmt.Errorf("listen on failover_router.proxy_listen %q: %w", settings.ProxyListen, err)
	}
	s.proxy = proxy.New(proxy.Params{
		Datacenter: s.cfg.Server.Datacenter, Resolver: s.resolver, Topology: s.topology,
		Dialer: proxy.Dialer{
			Identity: s.identity, Gateways: s.cfg.Endpoints.Gateway, Loops: loopguard.New(s.proxyListener.Addr()),
			DialTimeout: settings.ProxyDialTimeout, ResponseTimeout: settings.ProxyResponseTimeout,
		},
		MaxRetries: settings.MaxRetries, MaxHops: settings.ProxyMaxHops, EjectFor: settings.ProxyEjection,
		LocalAge: settings.ProxyCacheTTL, RemoteAge: settings.CacheTTL,
		Telemetry: s.deps.Telemetry, Clock: s.deps.Clock, Metrics: metrics,
	})
	s.group.Go("verdict", s.proxy.Run)
	connections := min(settings.ProxyMaxConnections, int(files/proxyFileShare)) //nolint:gosec // the smaller one is no large number
	gate := admission.New(admission.Limits{
		// Most applications are on this host, with one address: it may have all.
		Connections: connections, PerSource: connections,
		HalfOpen: max(1, connections/halfOpenShare), HalfOpenPerSource: max(1, connections/halfOpenShare),
	}, metrics.RefusedConnection)
	s.proxyServer = &http.Server{
		Handler: s.proxy, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, ConnState: admission.Spoke,
	}
	s.group.Go("proxy", func(context.Context) error {
		if err := s.proxyServer.Serve(gate.Listener(s.proxyListener)); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return nil
}

// Ready answers why the router can only repeat itself: its own registry cannot be reached. Other
// datacenters, and gossip, are no reason.
func (s *Service) Ready(context.Context) error {
	if s.registry.GetState() == connectivity.TransientFailure {
		return fault.New(fault.Unavailable, ReasonNoRegistry, "no registry answers at %v", s.cfg.Endpoints.Registry).
			WithRemedy("start the datacenter's registry; see endpoints.registry")
	}
	return nil
}

// Identity answers who the router is; nil before Start.
func (s *Service) Identity() identity.Source { return s.identity }

// Addr answers where Resolve is served.
func (s *Service) Addr() string { return s.listener.Addr().String() }

// ProxyAddr answers where the proxy listens.
func (s *Service) ProxyAddr() string { return s.proxyListener.Addr().String() }

// Stop ends watches, lets requests in flight finish until ctx ends, then ends the rest. It undoes a Start
// that failed half-way, too.
func (s *Service) Stop(ctx context.Context) error {
	s.stopping()
	var errs []error
	if s.proxyServer != nil {
		if err := s.proxyServer.Shutdown(ctx); err != nil {
			errs = append(errs, s.proxyServer.Close())
		}
		s.proxy.Close()
	}
	if s.server != nil {
		s.server.Drain(ctx)
	}
	errs = append(errs, s.group.Stop(ctx))
	for _, conn := range []*grpc.ClientConn{s.registry, s.gossip} {
		if conn != nil {
			errs = append(errs, conn.Close())
		}
	}
	s.registry, s.gossip = nil, nil
	return errors.Join(errs...)
}
