package wangossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	"konsul.dev/services/wan-gossip/internal/api"
	"konsul.dev/services/wan-gossip/internal/datacenters"
	"konsul.dev/services/wan-gossip/internal/keyfile"
	"konsul.dev/services/wan-gossip/internal/members"
	"konsul.dev/services/wan-gossip/internal/serfpool"
)

// ReasonRefused is the reason of a pool that will not have this datacenter.
const ReasonRefused = "GOSSIP_MERGE_REFUSED"

// Deps is what wan-gossip takes from its process, and from whom it learns addresses.
type Deps struct {
	konsulfx.Process

	// Lookup returns the IP addresses of a host name; nil: the system's resolver.
	Lookup func(ctx context.Context, host string) ([]string, error)
}

// Service is wan-gossip. Start and Stop are called once each, in this order; the rest is safe for
// concurrent use in between.
type Service struct {
	cfg     Config
	deps    Deps
	host    *konsulfx.Host
	self    members.Self
	view    *datacenters.View
	gate    *gate
	metrics *serfpool.Metrics
	keys    *keys
	peers   *peers
	// pool is nil without server.wan.enabled, and until it can be opened; opening is waited for
	// before it is left.
	pool    atomic.Pointer[pool]
	opening sync.WaitGroup
}

// New returns a service that does nothing yet, or everything that is wrong with its configuration.
func New(cfg Config, deps Deps) (*Service, error) {
	cfg.Normalize()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Lookup == nil {
		deps.Lookup = net.DefaultResolver.LookupHost
	}
	return &Service{
		cfg: cfg, deps: deps,
		host: konsulfx.NewHost(konsulfx.HostParams{Name: Name, Config: cfg.Base, Process: deps.Process}),
		view: datacenters.NewView(cfg.Server.Datacenter, cfg.Server.PrimaryDatacenter),
	}, nil
}

// Start gets an identity, binds both ports and begins to look for the other datacenters. It waits
// neither for them, nor for what the own part of the pool needs: a gossip key, and names that DNS
// knows.
func (s *Service) Start(ctx context.Context) error {
	return s.host.Start(ctx, s.Stop,
		s.makeFolder,
		s.host.Enroll,
		s.introduce,
		s.watchPool,
		s.gossip,
		s.serve,
		s.host.Listen("wan_gossip.listen", s.cfg.WANGossip.Listen),
	)
}

func (s *Service) makeFolder(context.Context) error {
	if err := os.MkdirAll(s.dir(), 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	return nil
}

// introduce makes what this member says about itself, and what it keeps its secrets in.
func (s *Service) introduce(ctx context.Context) error {
	credential, err := identity.ReadCredential(s.cfg.Server.SecretFile)
	if err != nil {
		return err
	}
	box, err := keyfile.New(filepath.Join(s.dir(), "gossip.key"), s.cfg.Server.Datacenter, credential.SealingKey())
	if err != nil {
		return err
	}
	ca, err := s.host.Dial("ca", s.cfg.Endpoints.CA)
	if err != nil {
		return err
	}
	s.keys = newKeys(box, cav1.NewCertificateServiceClient(ca), s.deps.Telemetry.Log)
	id, err := datacenterID(filepath.Join(s.dir(), "dcid"), func() (string, error) {
		if !credential.IsSecret() {
			return s.keys.datacenterID(ctx)
		}
		secret, err := credential.Secret(Name)
		if err != nil {
			return "", err
		}
		return identity.DatacenterID(secret, s.cfg.Server.Datacenter)
	})
	if err != nil {
		return err
	}
	s.self = members.Self{
		Name:       s.cfg.Server.Node + "." + s.cfg.Server.Datacenter,
		Federation: s.Identity().ID().FederationID, Datacenter: s.cfg.Server.Datacenter, DatacenterID: id,
		Gateways: gateways(s.cfg), Version: s.deps.Version,
	}
	s.peers = &peers{path: filepath.Join(s.dir(), "peers.json"), own: s.self.Name, log: s.deps.Telemetry.Log}
	if s.metrics, err = serfpool.NewMetrics(s.deps.Telemetry.Metrics); err != nil {
		return err
	}
	s.gate, err = newGate(s.self, s.deps.Telemetry, s.deps.Clock)
	return err
}

// watchPool makes the list of datacenters, which begins with the own one.
func (s *Service) watchPool(context.Context) error {
	if err := s.deps.Telemetry.Metrics.Register(datacenters.NewCollector(s.view)); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	alone := members.Parse(s.self.Name, s.cfg.Server.WAN.BindAddr, members.Alive, s.self.Tags())
	s.view.SetMembers([]members.Member{alone}, s.deps.Clock.Now())
	return nil
}

func (s *Service) serve(context.Context) error {
	server, err := s.host.NewServer(rpc.ServerParams{})
	if err != nil {
		return err
	}
	wangossipv1.RegisterDatacenterServiceServer(server, api.New(s.cfg.Server.Datacenter, s.view, s.host.Up().Done()))
	return nil
}

// Ready returns why this datacenter is not in the pool although others are there. Having no
// other datacenter to talk to is no reason.
func (s *Service) Ready(context.Context) error {
	open := s.pool.Load()
	if open == nil {
		return nil
	}
	list, _ := s.view.Current()
	if refusal := open.joiner.Refusal(); refusal != nil && datacenters.Connected(list) < 2 {
		return fault.New(fault.FailedPrecondition, ReasonRefused, "%s", refusal.Text).WithRemedy(refusal.Remedy)
	}
	return nil
}

// Identity returns who this service is; nil before Start.
func (s *Service) Identity() identity.Source { return s.host.Identity() }

// Addr returns where the list is served.
func (s *Service) Addr() string { return s.host.Addr() }

// GossipAddr returns where gossip is advertised; empty when server.wan.enabled is false, and until
// the pool is open.
func (s *Service) GossipAddr() string {
	open := s.pool.Load()
	if open == nil {
		return ""
	}
	return open.Addr()
}

// Stop says farewell to the pool, then ends the rest. It undoes a Start that failed half-way, too.
func (s *Service) Stop(ctx context.Context) error {
	// Watches, joins and pings are quiet before the farewell.
	s.host.Quiesce()
	s.opening.Wait()
	open := s.pool.Load()
	if open == nil {
		return s.host.Stop(ctx)
	}
	leaving, cancel := context.WithTimeout(ctx, s.cfg.WANGossip.LeaveTimeout)
	defer cancel()
	if err := open.Leave(leaving); err != nil {
		// The others will see a failure instead of a farewell; they know how to live with that.
		s.deps.Telemetry.Log.Warn("gossip was left without a farewell", obs.KeyError, err)
	}
	return errors.Join(s.host.Halt(ctx), open.Shutdown(), s.host.Close())
}

func (s *Service) dir() string { return filepath.Join(s.cfg.Server.DataDir, Name) }
