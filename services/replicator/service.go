package replicator

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	replicatorv1 "konsul.dev/proto/gen/konsul/replicator/v1"

	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/konsulfx"
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

// Service is a replicator. Start and Stop are called once each, in this order; the rest is safe for
// concurrent use in between.
type Service struct {
	cfg     Config
	process konsulfx.Process
	host    *konsulfx.Host
	puller  *pull.Puller
}

// New returns a replicator that does nothing yet, or everything that is wrong with its
// configuration.
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

// Start gets an identity, binds the port and starts copying. It does not wait for the primary.
func (s *Service) Start(ctx context.Context) error {
	return s.host.Start(ctx, s.Stop,
		s.host.Enroll,
		s.assemble,
		s.host.Listen("replicator.listen", s.cfg.Replicator.Listen),
		s.run,
	)
}

func (s *Service) run(context.Context) error {
	s.host.Go("pull", s.puller.Run)
	return nil
}

// assemble makes the parts that need an identity.
func (s *Service) assemble(context.Context) error {
	settings, telemetry := s.cfg.Replicator, s.process.Telemetry
	registry, err := s.host.Dial(registryComponent, s.cfg.Endpoints.Registry)
	if err != nil {
		return err
	}
	metrics, err := pull.NewMetrics(telemetry.Metrics)
	if err != nil {
		return err
	}
	client := source.New(source.Params{
		Dial:         s.dial,
		Target:       s.cfg.Server.Datacenter,
		FederationID: s.Identity().ID().FederationID,
		Timeout:      settings.StreamTimeout,
		Heartbeat:    settings.Heartbeat,
	})
	s.puller = pull.New(pull.Params{
		Datacenter:   s.cfg.Server.Datacenter,
		FederationID: s.Identity().ID().FederationID,
		Expected:     s.cfg.Server.PrimaryDatacenter,
		Sink:         sink.New(registry, sink.Limits{Entries: settings.BatchMax, Bytes: batchBytes}, settings.CallTimeout),
		Open: func(ctx context.Context, from cursor.Position, lineages cursor.Lineages) (pull.Stream, error) {
			return client.Open(ctx, from, lineages)
		},
		Clock: s.process.Clock, Log: telemetry.Log, Metrics: metrics,
		Poll: settings.PollInterval, StoreEvery: settings.CursorInterval,
		RetryMin: settings.RetryMin, RetryMax: settings.RetryMax,
	})
	if err := telemetry.Metrics.Register(pull.NewCollector(s.puller)); err != nil {
		return fmt.Errorf("register replication lag: %w", err)
	}
	server, err := s.host.NewServer(rpc.ServerParams{})
	if err != nil {
		return err
	}
	replicatorv1.RegisterStatusServiceServer(server, api.New(s.cfg.Server.Datacenter, s.puller))
	return nil
}

// dial opens a connection to another datacenter's registry through the own gateways.
func (s *Service) dial(datacenter string) (*grpc.ClientConn, error) {
	return rpc.DialDatacenter(s.cfg.Endpoints.Gateway, datacenter, registryComponent, rpc.ClientParams{
		Identity: s.Identity(), Telemetry: s.process.Telemetry,
		Options: []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage))},
	})
}

// Ready returns why the replicator cannot do its work because of this datacenter; a primary that is
// away is no reason.
func (s *Service) Ready(ctx context.Context) error { return s.puller.Ready(ctx) }

// Identity returns who the replicator is; nil before Start.
func (s *Service) Identity() identity.Source { return s.host.Identity() }

// Addr returns where status is served.
func (s *Service) Addr() string { return s.host.Addr() }

// Stop ends copying between two commits, then the rest. It undoes a Start that failed half-way,
// too.
func (s *Service) Stop(ctx context.Context) error { return s.host.Stop(ctx) }
