package replicator

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"

	replicatorv1 "konsul.dev/proto/gen/konsul/replicator/v1"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/lifecycle"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	"konsul.dev/services/replicator/internal/api"
	"konsul.dev/services/replicator/internal/cursor"
	"konsul.dev/services/replicator/internal/pull"
	"konsul.dev/services/replicator/internal/sink"
	"konsul.dev/services/replicator/internal/source"
)

const registryComponent = "registry"

// maxMessage is what a message from the source may weigh: a value at its limit with room to spare.
const maxMessage = 16 << 20

// Deps is what a replicator takes from its process.
type Deps struct {
	Telemetry *obs.Telemetry
	Clock     clock.Clock
	// Fail is told once when a loop fails; it should end the process.
	Fail func(error)
	// Identity is who the replicator is; nil: it enrolls with the datacenter's ca.
	Identity identity.Source
}

// Service is a replicator. Start and Stop are called once each, in this order; the rest is safe for
// concurrent use in between.
type Service struct {
	cfg      Config
	deps     Deps
	group    *lifecycle.Group
	identity identity.Source
	registry *grpc.ClientConn
	puller   *pull.Puller
	server   *rpc.Server
	listener net.Listener
}

// New answers a replicator that does nothing yet, or everything that is wrong with its configuration.
func New(cfg Config, deps Deps) (*Service, error) {
	cfg.Normalize()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Service{cfg: cfg, deps: deps, group: lifecycle.NewGroup(deps.Telemetry.Log, deps.Fail)}, nil
}

// Start gets an identity, binds the port and starts copying. It does not wait for the primary.
func (s *Service) Start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop(ctx))
		}
	}()
	if err := s.enroll(ctx); err != nil {
		return err
	}
	s.registry, err = rpc.Dial(s.cfg.Endpoints.Registry, rpc.ClientParams{
		Identity: s.identity, Want: identity.Want{Service: registryComponent}, Telemetry: s.deps.Telemetry,
	})
	if err != nil {
		return err
	}
	if err := s.assemble(); err != nil {
		return err
	}
	s.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.Replicator.Listen)
	if err != nil {
		return fmt.Errorf("listen on replicator.listen %q: %w", s.cfg.Replicator.Listen, err)
	}
	s.group.Go("serve", s.serve)
	s.group.Go("pull", s.puller.Run)
	s.server.Serving()
	return nil
}

func (s *Service) serve(context.Context) error { return s.server.Serve(s.listener) }

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
	settings, telemetry := s.cfg.Replicator, s.deps.Telemetry
	metrics, err := pull.NewMetrics(telemetry.Metrics)
	if err != nil {
		return err
	}
	client := source.New(source.Params{
		Dial:         s.dial,
		Target:       s.cfg.Server.Datacenter,
		FederationID: s.identity.ID().FederationID,
		Timeout:      settings.StreamTimeout,
		Heartbeat:    settings.Heartbeat,
	})
	s.puller = pull.New(pull.Params{
		Datacenter:   s.cfg.Server.Datacenter,
		FederationID: s.identity.ID().FederationID,
		Expected:     s.cfg.Server.PrimaryDatacenter,
		Sink:         sink.New(s.registry, sink.Limits{Entries: settings.BatchMax, Bytes: batchBytes}, settings.CallTimeout),
		Open: func(ctx context.Context, from cursor.Position, lineages cursor.Lineages) (pull.Stream, error) {
			return client.Open(ctx, from, lineages)
		},
		Clock: s.deps.Clock, Log: telemetry.Log, Metrics: metrics,
		Poll: settings.PollInterval, StoreEvery: settings.CursorInterval,
		RetryMin: settings.RetryMin, RetryMax: settings.RetryMax,
	})
	if err := telemetry.Metrics.Register(pull.NewCollector(s.puller)); err != nil {
		return fmt.Errorf("register replication lag: %w", err)
	}
	s.server, err = rpc.NewServer(rpc.ServerParams{Name: Name, Identity: s.identity, Access: api.Access(), Telemetry: telemetry, Limits: s.cfg.Server.Limits})
	if err != nil {
		return err
	}
	replicatorv1.RegisterStatusServiceServer(s.server, api.New(s.cfg.Server.Datacenter, s.puller))
	return nil
}

// dial opens a connection to another datacenter's registry through the own gateways.
func (s *Service) dial(datacenter string) (*grpc.ClientConn, error) {
	return rpc.DialDatacenter(s.cfg.Endpoints.Gateway, datacenter, registryComponent, rpc.ClientParams{
		Identity: s.identity, Telemetry: s.deps.Telemetry,
		Options: []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage))},
	})
}

// Ready answers why the replicator cannot do its work because of this datacenter; a primary that is
// away is no reason.
func (s *Service) Ready(ctx context.Context) error { return s.puller.Ready(ctx) }

// Identity answers who the replicator is; nil before Start.
func (s *Service) Identity() identity.Source { return s.identity }

// Addr answers where status is served.
func (s *Service) Addr() string { return s.listener.Addr().String() }

// Stop ends copying between two commits, then the rest. It undoes a Start that failed half-way, too.
func (s *Service) Stop(ctx context.Context) error {
	if s.server != nil {
		s.server.Drain(ctx)
	}
	err := s.group.Stop(ctx)
	if s.registry != nil {
		err = errors.Join(err, s.registry.Close())
		s.registry = nil
	}
	return err
}
