package failoverrouter

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	failoverrouterv1 "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/admission"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/loopguard"
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
	// headerTimeout bounds how long an application may take to send a request's header.
	headerTimeout = 10 * time.Second
	// idleTimeout is how long an application's connection may wait for its next request.
	idleTimeout = 5 * time.Minute
	// proxyFileShare is the part of the files that the process may open which the proxy's callers
	// take at most, halfOpenShare the part of their connections that may not have sent a request
	// yet.
	proxyFileShare, halfOpenShare = 8, 4
)

// Service is a failover-router. Start and Stop are called once each, in this order; the rest is
// safe for concurrent use in between.
type Service struct {
	cfg      Config
	process  konsulfx.Process
	host     *konsulfx.Host
	registry *grpc.ClientConn
	topology *topology.Topology
	resolver *resolve.Resolver

	proxy         *proxy.Proxy
	proxyServer   *http.Server
	proxyListener net.Listener
}

// New returns a router that does nothing yet, or everything that is wrong with its configuration.
func New(cfg Config, process konsulfx.Process) (*Service, error) {
	cfg.Normalize()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Service{
		cfg: cfg, process: process,
		host: konsulfx.NewHost(konsulfx.HostParams{Name: Name, Config: cfg.Base, Process: process}),
	}, nil
}

// Start gets an identity, binds both ports and starts to follow gossip. It waits for no other
// service.
func (s *Service) Start(ctx context.Context) error {
	return s.host.Start(ctx, s.Stop,
		s.host.Enroll,
		s.assemble,
		s.serveAPI,
		s.host.Listen("failover_router.listen", s.cfg.FailoverRouter.Listen),
		s.serveProxy,
		s.follow,
	)
}

// assemble makes the parts that need an identity.
func (s *Service) assemble(context.Context) error {
	var err error
	if s.registry, err = s.host.Dial("registry", s.cfg.Endpoints.Registry); err != nil {
		return err
	}
	s.registry.Connect()
	gossip, err := s.host.Dial("wan-gossip", s.cfg.Endpoints.WANGossip)
	if err != nil {
		return err
	}
	s.topology = topology.New(wangossipv1.NewDatacenterServiceClient(gossip), s.process.Telemetry.Log)
	metrics, err := resolve.NewMetrics(s.process.Telemetry.Metrics)
	if err != nil {
		return err
	}
	s.resolver = resolve.New(resolve.Params{
		Datacenter: s.cfg.Server.Datacenter,
		Catalogue: catalogue.New(catalogue.Params{
			Registry:   registryv1.NewCatalogServiceClient(s.registry),
			Datacenter: s.cfg.Server.Datacenter,
			Lease:      s.cfg.FailoverRouter.Lease,
			Clock:      s.process.Clock,
		}),
		Topology: s.topology, Timeout: s.cfg.FailoverRouter.RemoteTimeout, Metrics: metrics,
	})
	return nil
}

func (s *Service) serveAPI(context.Context) error {
	server, err := s.host.NewServer(rpc.ServerParams{})
	if err != nil {
		return err
	}
	failoverrouterv1.RegisterRouterServiceServer(server, api.New(api.Params{
		Resolver: s.resolver, Topology: s.topology, CacheTTL: s.cfg.FailoverRouter.CacheTTL, Stopping: s.host.Up().Done(),
	}))
	return nil
}

func (s *Service) follow(context.Context) error {
	s.host.Go("follow gossip", s.topology.Run)
	return nil
}

func (s *Service) serveProxy(ctx context.Context) error {
	settings := s.cfg.FailoverRouter
	metrics, err := proxy.NewMetrics(s.process.Telemetry.Metrics)
	if err != nil {
		return err
	}
	files, err := admission.OpenFiles()
	if err != nil {
		return err
	}
	s.proxyListener, err = admission.Bind(ctx, net.ListenConfig{}, "failover_router.proxy_listen", settings.ProxyListen)
	if err != nil {
		return err
	}
	s.proxy = proxy.New(proxy.Params{
		Datacenter: s.cfg.Server.Datacenter, Resolver: s.resolver, Topology: s.topology,
		Dialer: proxy.Dialer{
			Identity: s.Identity(), Gateways: s.cfg.Endpoints.Gateway, Loops: loopguard.New(s.proxyListener.Addr()),
			DialTimeout: settings.ProxyDialTimeout, ResponseTimeout: settings.ProxyResponseTimeout,
		},
		MaxRetries: settings.MaxRetries, MaxHops: settings.ProxyMaxHops, EjectFor: settings.ProxyEjection,
		LocalAge: settings.ProxyCacheTTL, RemoteAge: settings.CacheTTL,
		Telemetry: s.process.Telemetry, Clock: s.process.Clock, Metrics: metrics,
	})
	s.host.Go("verdict", s.proxy.Run)
	connections := min(settings.ProxyMaxConnections, int(files/proxyFileShare)) //nolint:gosec // the smaller one is no large number
	gate := admission.New(admission.Limits{
		// Most applications are on this host, with one address: it may have all.
		Connections: connections, PerSource: connections,
		HalfOpen: max(1, connections/halfOpenShare), HalfOpenPerSource: max(1, connections/halfOpenShare),
	}, metrics.RefusedConnection)
	s.proxyServer = &http.Server{
		Handler: s.proxy, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, ConnState: admission.Spoke,
	}
	s.host.Go("proxy", func(context.Context) error {
		if err := s.proxyServer.Serve(gate.Listener(s.proxyListener)); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return nil
}

// Ready returns why the router can only repeat itself: its own registry cannot be reached. Other
// datacenters, and gossip, are no reason.
func (s *Service) Ready(context.Context) error {
	if s.registry.GetState() == connectivity.TransientFailure {
		return fault.New(fault.Unavailable, ReasonNoRegistry, "no registry answers at %v", s.cfg.Endpoints.Registry).
			WithRemedy("start the datacenter's registry; see endpoints.registry")
	}
	return nil
}

// Identity returns who the router is; nil before Start.
func (s *Service) Identity() identity.Source { return s.host.Identity() }

// Addr returns where Resolve is served.
func (s *Service) Addr() string { return s.host.Addr() }

// ProxyAddr returns where the proxy listens.
func (s *Service) ProxyAddr() string { return s.proxyListener.Addr().String() }

// Stop ends watches, lets requests in flight finish until ctx ends, then ends the rest. It undoes a
// Start that failed half-way, too.
func (s *Service) Stop(ctx context.Context) error {
	s.host.Quiesce()
	var err error
	if s.proxyServer != nil {
		if s.proxyServer.Shutdown(ctx) != nil {
			err = s.proxyServer.Close()
		}
		s.proxy.Close()
	}
	return errors.Join(err, s.host.Stop(ctx))
}
