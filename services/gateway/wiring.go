package gateway

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/admission"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/loopguard"
	"konsul.dev/services/gateway/internal/balance"
	"konsul.dev/services/gateway/internal/listener"
	"konsul.dev/services/gateway/internal/restedge"
	"konsul.dev/services/gateway/internal/route"
	"konsul.dev/services/gateway/internal/topology"
	"konsul.dev/services/gateway/internal/workload"
)

const (
	// instancesFresh is how long a workload's instances are used without asking, instancesLease how
	// long when the registry does not answer.
	instancesFresh = time.Second
	instancesLease = 10 * time.Minute
	// maxAnswer bounds a message from our own services: a list of many keys, not an attack.
	maxAnswer = 64 << 20

	registryComponent = "registry"
	caComponent       = "ca"
)

// assemble makes the parts that need an identity.
func (s *Service) assemble(ctx context.Context) error {
	mesh, edge, err := s.gates(ctx)
	if err != nil {
		return err
	}
	conns, err := s.dial()
	if err != nil {
		return err
	}
	s.watchTopology(conns)
	if err := s.assembleMesh(conns, mesh); err != nil {
		return err
	}
	return s.assembleEdge(conns, edge)
}

// dial makes lazy connections to the datacenter's services.
func (s *Service) dial() (restedge.Conns, error) {
	var errs []error
	connect := func(component string, addresses []string) *grpc.ClientConn {
		conn, err := s.host.Dial(component, addresses, grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
		errs = append(errs, err)
		return conn
	}
	e := s.cfg.Endpoints
	conns := restedge.Conns{
		Registry: connect(registryComponent, e.Registry), CA: connect(caComponent, e.CA), WANGossip: connect("wan-gossip", e.WANGossip),
		FailoverRouter: connect("failover-router", e.FailoverRouter),
	}
	return conns.Named(s.cfg.Server.Datacenter), errors.Join(errs...)
}

// watchTopology keeps the routing table in step with what is known of the federation.
func (s *Service) watchTopology(conns restedge.Conns) {
	// The components that other datacenters talk to; no other is reachable through a gateway.
	base := route.New(s.cfg.Server.Datacenter, identity.TrustDomain(s.Identity().ID().FederationID), map[string][]string{
		registryComponent: s.cfg.Endpoints.Registry, caComponent: s.cfg.Endpoints.CA,
	})
	own := append(slices.Clone(s.cfg.Endpoints.Gateway), s.cfg.Gateway.WANAddress, s.cfg.Gateway.Listen)
	s.topology = topology.New(topology.Params{
		Datacenter: s.cfg.Server.Datacenter,
		Gossip:     wangossipv1.NewDatacenterServiceClient(conns.WANGossip),
		Registry:   federationv1.NewFederationServiceClient(conns.Registry),
		Path:       filepath.Join(s.cfg.Server.DataDir, Name, "topology.json"),
		Changed:    func(remotes map[string][]string) { s.table.Store(base.With(remotes, own)) },
		Clock:      s.deps.Clock,
		Log:        s.deps.Telemetry.Log,
	})
}

func (s *Service) assembleMesh(conns restedge.Conns, limits admission.Limits) error {
	metrics, err := listener.NewMetrics(s.deps.Telemetry.Metrics)
	if err != nil {
		return err
	}
	g := s.cfg.Gateway
	catalogue := workload.New(registryv1.NewCatalogServiceClient(conns.Registry), s.deps.Clock, instancesFresh, instancesLease)
	s.mesh = listener.New(listener.Params{
		Settings: listener.Settings{
			HandshakeTimeout: g.HandshakeTimeout, DialTimeout: g.DialTimeout, IdleTimeout: g.IdleTimeout,
			HalfCloseTimeout: g.HalfCloseTimeout, Limits: limits,
		},
		Datacenter:  s.cfg.Server.Datacenter,
		Table:       s.table.Load,
		Instances:   catalogue.Instances,
		WorkloadTLS: s.Identity().ServerTLS(identity.ServerOptions{Accept: workload.Admit}),
		Balancer:    balance.New(s.deps.Clock.Now, rand.IntN),
		Loops:       loopguard.New(s.meshListener.Addr(), s.edgeListener.Addr()),
		Metrics:     metrics,
		Log:         s.deps.Telemetry.Log,
	})
	return nil
}

func (s *Service) assembleEdge(conns restedge.Conns, limits admission.Limits) (err error) {
	g := s.cfg.Gateway
	s.writes = &writes{registry: healthv1.NewHealthClient(conns.Registry), clock: s.deps.Clock}
	s.edge, err = restedge.New(restedge.Params{
		Conns:     conns,
		Tokens:    restedge.NewTokens(registryv1.NewTokenServiceClient(conns.Registry), s.deps.Clock, g.IntrospectCacheTTL),
		TLS:       s.Identity().ServerTLS(identity.ServerOptions{ClientCert: identity.NoClientCert, NextProtos: []string{"h2", "http/1.1"}}),
		Telemetry: s.deps.Telemetry,
		Bounds: restedge.Bounds{
			MaxConcurrentStreams: g.MaxConcurrentStreams, MaxHeaderBytes: g.MaxHeaderBytes,
			MaxRequestBytes: g.MaxRequestBytes, MaxInflightBytes: g.MaxInflightBytes, RequestReadTimeout: g.RequestReadTimeout,
		},
		Limits:  limits,
		Ready:   s.deps.Ready,
		Writes:  s.writes.why,
		Metrics: s.deps.Metrics,
	})
	return err
}
