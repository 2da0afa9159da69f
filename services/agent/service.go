package agent

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	agentv1 "konsul.dev/proto/gen/konsul/agent/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/rpc"
	"konsul.dev/services/agent/internal/api"
	"konsul.dev/services/agent/internal/checks"
	"konsul.dev/services/agent/internal/heartbeat"
	"konsul.dev/services/agent/internal/local"
	"konsul.dev/services/agent/internal/registrar"
)

const registryComponent = "registry"

// Service is an agent. Start and Stop are called once each, in this order; the rest is safe for
// concurrent use in between.
type Service struct {
	cfg       Config
	process   konsulfx.Process
	host      *konsulfx.Host
	registry  *grpc.ClientConn
	state     *local.State
	metrics   *metrics
	runner    *checks.Runner
	registrar *registrar.Registrar
	heart     *heartbeat.Heart
	files     *reloader
	started   bool
}

// New returns an agent that does nothing yet, or everything that is wrong with its configuration.
func New(cfg Config, process konsulfx.Process) (*Service, error) {
	cfg.Normalize()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	node := &registryv1.Node{Name: cfg.Server.Node, Address: cfg.Agent.NodeAddress}
	if cfg.Agent.LivenessTTL > 0 {
		node.LivenessTtl = durationpb.New(cfg.Agent.LivenessTTL)
	}
	return &Service{
		cfg: cfg, process: process, state: local.New(node),
		host: konsulfx.NewHost(konsulfx.HostParams{Name: Name, Config: cfg.Base, Process: process}),
	}, nil
}

// Start gets an identity, binds the port and starts looking after the node. It waits neither for
// the registry nor for the first outcome of a check.
func (s *Service) Start(ctx context.Context) error {
	return s.host.Start(ctx, s.Stop,
		s.host.Enroll,
		s.assemble,
		s.host.Listen("agent.listen", s.cfg.Agent.Listen),
		s.run,
	)
}

// run reads the definitions and starts the loops.
func (s *Service) run(ctx context.Context) error {
	s.started = true
	s.files = newReloader(s)
	s.files.load(ctx)
	s.host.Go("reload definitions", s.files.run)
	s.host.Go("sync", s.registrar.Run)
	if s.cfg.Agent.LivenessTTL > 0 {
		s.host.Go("heartbeat", s.heart.Run)
	}
	s.host.Go("watch connection", s.reconnected)
	return nil
}

// assemble makes the parts that need an identity.
func (s *Service) assemble(context.Context) (err error) {
	settings, telemetry := s.cfg.Agent, s.process.Telemetry
	s.metrics, err = newMetrics(telemetry.Metrics, s.state)
	if err != nil {
		return err
	}
	syncs, err := registrar.NewMetrics(telemetry.Metrics)
	if err != nil {
		return err
	}
	beats, err := heartbeat.NewMetrics(telemetry.Metrics)
	if err != nil {
		return err
	}
	if s.registry, err = s.host.Dial(registryComponent, s.cfg.Endpoints.Registry); err != nil {
		return err
	}
	client := registrar.NewClient(s.registry, settings.CallTimeout)
	s.heart = heartbeat.New(heartbeat.Params{
		Registry: client, Node: s.cfg.Server.Node, TTL: settings.LivenessTTL, CallTimeout: settings.CallTimeout,
		RetryMin: settings.RetryMin, RetryMax: settings.RetryMax,
		Unexpected: func() { s.registrar.Lost() }, Log: telemetry.Log, Metrics: beats,
	})
	// A dead node comes back to life only with what it runs now, so the first beat follows the
	// first comparison.
	s.registrar = registrar.New(registrar.Params{
		State: s.state, Registry: client, Log: telemetry.Log, Metrics: syncs, Compared: s.heart.Beat,
		Interval: settings.SyncInterval, RetryMin: settings.RetryMin, RetryMax: settings.RetryMax,
	})
	s.runner = checks.NewRunner(checks.NewProber().Probe, settings.CheckConcurrency, s.observe)
	server, err := s.host.NewServer(rpc.ServerParams{})
	if err != nil {
		return err
	}
	agentv1.RegisterAgentServiceServer(server, api.New(s.state, s.runner))
	return nil
}

// Reload reads the service definitions at once, as they are read every agent.reload_interval.
func (s *Service) Reload(ctx context.Context) ([]string, error) {
	count, err := s.files.now(ctx)
	if err != nil {
		return nil, err
	}
	return []string{fmt.Sprintf("service definitions (%d)", count)}, nil
}

// Ready returns why the registry has never been told of this node; nil once it has.
func (s *Service) Ready(ctx context.Context) error { return s.registrar.Ready(ctx) }

// Identity returns who the agent is; nil before Start.
func (s *Service) Identity() identity.Source { return s.host.Identity() }

// Addr returns where the local API is served.
func (s *Service) Addr() string { return s.host.Addr() }

// Stop ends the checks and the loops. The registrations stay, so that a restart is no outage, and
// to the registry an agent that does not come back is one that crashed; with agent.leave_on_stop
// the node is deregistered instead. It undoes a Start that failed half-way, too.
func (s *Service) Stop(ctx context.Context) error {
	err := s.host.Halt(ctx)
	if s.runner != nil {
		s.runner.Stop()
	}
	if s.started && s.cfg.Agent.LeaveOnStop {
		s.started = false
		err = errors.Join(err, s.registrar.Leave(ctx))
	}
	return errors.Join(err, s.host.Close())
}
