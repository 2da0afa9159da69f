package agent

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	agentv1 "konsul.dev/proto/gen/konsul/agent/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/lifecycle"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	"konsul.dev/services/agent/internal/api"
	"konsul.dev/services/agent/internal/checks"
	"konsul.dev/services/agent/internal/heartbeat"
	"konsul.dev/services/agent/internal/local"
	"konsul.dev/services/agent/internal/registrar"
)

const registryComponent = "registry"

// Deps is what an agent takes from its process.
type Deps struct {
	Telemetry *obs.Telemetry
	// Fail is told once when a loop fails; it should end the process.
	Fail func(error)
	// Identity is who the agent is; nil: it enrolls with the datacenter's ca.
	Identity identity.Source
}

// Service is an agent. Start and Stop are called once each, in this order; the rest is safe for
// concurrent use in between.
type Service struct {
	cfg       Config
	deps      Deps
	group     *lifecycle.Group
	identity  identity.Source
	registry  *grpc.ClientConn
	state     *local.State
	metrics   *metrics
	runner    *checks.Runner
	registrar *registrar.Registrar
	heart     *heartbeat.Heart
	server    *rpc.Server
	listener  net.Listener
	files     *reloader
}

// New answers an agent that does nothing yet, or everything that is wrong with its configuration.
func New(cfg Config, deps Deps) (*Service, error) {
	cfg.Normalize()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	node := &registryv1.Node{Name: cfg.Server.Node, Address: cfg.Agent.NodeAddress}
	if cfg.Agent.LivenessTTL > 0 {
		node.LivenessTtl = durationpb.New(cfg.Agent.LivenessTTL)
	}
	return &Service{
		cfg: cfg, deps: deps, group: lifecycle.NewGroup(deps.Telemetry.Log, deps.Fail), state: local.New(node),
	}, nil
}

// Start gets an identity, binds the port and starts looking after the node. It waits neither for the
// registry nor for the first outcome of a check.
func (s *Service) Start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop(ctx))
		}
	}()
	if err := s.enroll(ctx); err != nil {
		return err
	}
	if err := s.assemble(); err != nil {
		return err
	}
	s.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.Agent.Listen)
	if err != nil {
		return fmt.Errorf("listen on agent.listen %q: %w", s.cfg.Agent.Listen, err)
	}
	s.files = newReloader(s)
	s.files.load(ctx)
	s.group.Go("serve", s.serve)
	s.group.Go("reload definitions", s.files.run)
	s.group.Go("sync", s.registrar.Run)
	if s.cfg.Agent.LivenessTTL > 0 {
		s.group.Go("heartbeat", s.heart.Run)
	}
	s.group.Go("watch connection", s.reconnected)
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
func (s *Service) assemble() (err error) {
	settings, telemetry := s.cfg.Agent, s.deps.Telemetry
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
	s.registry, err = rpc.Dial(s.cfg.Endpoints.Registry, rpc.ClientParams{
		Identity: s.identity, Want: identity.Want{Service: registryComponent}, Telemetry: telemetry,
	})
	if err != nil {
		return err
	}
	client := registrar.NewClient(s.registry, settings.CallTimeout)
	s.heart = heartbeat.New(heartbeat.Params{
		Registry: client, Node: s.cfg.Server.Node, TTL: settings.LivenessTTL, CallTimeout: settings.CallTimeout,
		RetryMin: settings.RetryMin, RetryMax: settings.RetryMax,
		Unexpected: func() { s.registrar.Lost() }, Log: telemetry.Log, Metrics: beats,
	})
	// A dead node comes back to life only with what it runs now, so the first beat follows the first comparison.
	s.registrar = registrar.New(registrar.Params{
		State: s.state, Registry: client, Log: telemetry.Log, Metrics: syncs, Compared: s.heart.Beat,
		Interval: settings.SyncInterval, RetryMin: settings.RetryMin, RetryMax: settings.RetryMax,
	})
	s.runner = checks.NewRunner(checks.NewProber().Probe, settings.CheckConcurrency, s.observe)
	s.server, err = rpc.NewServer(rpc.ServerParams{Name: Name, Identity: s.identity, Access: api.Access(), Telemetry: telemetry, Limits: s.cfg.Server.Limits})
	if err != nil {
		return err
	}
	agentv1.RegisterAgentServiceServer(s.server, api.New(s.state, s.runner))
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

// Ready answers why the registry has never been told of this node; nil once it has.
func (s *Service) Ready(ctx context.Context) error { return s.registrar.Ready(ctx) }

// Identity answers who the agent is; nil before Start.
func (s *Service) Identity() identity.Source { return s.identity }

// Addr answers where the local API is served.
func (s *Service) Addr() string { return s.listener.Addr().String() }

// Stop ends the checks and the loops. The registrations stay, so that a restart is no outage, and to the registry an
// agent that does not come back is one that crashed; with agent.leave_on_stop the node is deregistered instead. It
// undoes a Start that failed half-way, too.
func (s *Service) Stop(ctx context.Context) error {
	if s.server != nil {
		s.server.Drain(ctx)
	}
	err := s.group.Stop(ctx)
	if s.runner != nil {
		s.runner.Stop()
	}
	if s.registry != nil {
		if s.listener != nil && s.cfg.Agent.LeaveOnStop {
			err = errors.Join(err, s.registrar.Leave(ctx))
		}
		err = errors.Join(err, s.registry.Close())
		s.registry = nil
	}
	return err
}
