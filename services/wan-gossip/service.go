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
	"time"

	"google.golang.org/grpc"

	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/lifecycle"
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

// undoTimeout bounds the undoing of a start that failed, which may have failed because its time ran out.
const undoTimeout = 5 * time.Second

// Deps is what wan-gossip takes from its process.
type Deps struct {
	Telemetry *obs.Telemetry
	Clock     clock.Clock
	// Fail is told once when a loop fails; it should end the process.
	Fail func(error)
	// Identity is who this service is; nil: it enrolls with the datacenter's ca.
	Identity identity.Source
	// Version is what the other datacenters are told; empty: unknown.
	Version string
	// Lookup answers the IP addresses of a host name; nil: the system's resolver.
	Lookup func(ctx context.Context, host string) ([]string, error)
}

// Service is wan-gossip. Start and Stop are called once each, in this order; the rest is safe for
// concurrent use in between.
type Service struct {
	cfg      Config
	deps     Deps
	group    *lifecycle.Group
	identity identity.Source
	self     members.Self
	view     *datacenters.View
	gate     *gate
	metrics  *serfpool.Metrics
	keys     *keys
	peers    *peers
	ca       *grpc.ClientConn
	server   *rpc.Server
	listener net.Listener
	// pool is nil without server.wan.enabled, and until it can be opened; opening is waited for before it
	// is left.
	pool    atomic.Pointer[pool]
	opening sync.WaitGroup
	// quiesce ends what must be quiet before the farewell: watches, joins and pings.
	quiesce context.CancelFunc
}

// New answers a service that does nothing yet, or everything that is wrong with its configuration.
func New(cfg Config, deps Deps) (*Service, error) {
	cfg.Normalize()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Lookup == nil {
		deps.Lookup = net.DefaultResolver.LookupHost
	}
	return &Service{
		cfg: cfg, deps: deps, quiesce: func() {},
		group: lifecycle.NewGroup(deps.Telemetry.Log, deps.Fail),
		view:  datacenters.NewView(cfg.Server.Datacenter, cfg.Server.PrimaryDatacenter),
	}, nil
}

// Start gets an identity, binds both ports and begins to look for the other datacenters. It waits neither
// for them, nor for what the own part of the pool needs: a gossip key, and names that DNS knows.
func (s *Service) Start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
			defer cancel()
			err = errors.Join(err, s.Stop(undo))
		}
	}()
	if err := os.MkdirAll(s.dir(), 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	if err := s.enroll(ctx); err != nil {
		return err
	}
	quiet, quiesce := context.WithCancel(context.WithoutCancel(ctx))
	s.quiesce = quiesce
	if err := s.introduce(ctx); err != nil {
		return err
	}
	if err := s.deps.Telemetry.Metrics.Register(datacenters.NewCollector(s.view)); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	alone := members.Parse(s.self.Name, s.cfg.Server.WAN.BindAddr, members.Alive, s.self.Tags())
	s.view.SetMembers([]members.Member{alone}, s.deps.Clock.Now())
	if s.cfg.Server.WAN.Enabled {
		if err := s.gossip(ctx, quiet); err != nil {
			return err
		}
	}
	return s.serve(ctx, quiet.Done())
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
	s.ca, err = rpc.Dial(s.cfg.Endpoints.CA, rpc.ClientParams{
		Identity: s.identity, Want: identity.Want{Service: "ca"}, Telemetry: s.deps.Telemetry,
	})
	if err != nil {
		return err
	}
	s.keys = newKeys(box, cav1.NewCertificateServiceClient(s.ca), s.deps.Telemetry.Log)
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
		Federation: s.identity.ID().FederationID, Datacenter: s.cfg.Server.Datacenter, DatacenterID: id,
		Gateways: gateways(s.cfg), Version: s.deps.Version,
	}
	s.peers = &peers{path: filepath.Join(s.dir(), "peers.json"), own: s.self.Name, log: s.deps.Telemetry.Log}
	if s.metrics, err = serfpool.NewMetrics(s.deps.Telemetry.Metrics); err != nil {
		return err
	}
	s.gate, err = newGate(s.self, s.deps.Telemetry, s.deps.Clock)
	return err
}

func (s *Service) serve(ctx context.Context, stopping <-chan struct{}) (err error) {
	s.server, err = rpc.NewServer(rpc.ServerParams{Name: Name, Identity: s.identity, Access: api.Access(), Telemetry: s.deps.Telemetry, Limits: s.cfg.Server.Limits})
	if err != nil {
		return err
	}
	wangossipv1.RegisterDatacenterServiceServer(s.server, api.New(s.cfg.Server.Datacenter, s.view, stopping))
	s.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.WANGossip.Listen)
	if err != nil {
		return fmt.Errorf("listen on wan_gossip.listen %q: %w", s.cfg.WANGossip.Listen, err)
	}
	s.group.Go("serve", func(context.Context) error { return s.server.Serve(s.listener) })
	s.server.Serving()
	return nil
}

// Ready answers why this datacenter is not in the pool although others are there. Having no
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

// Identity answers who this service is; nil before Start.
func (s *Service) Identity() identity.Source { return s.identity }

// Addr answers where the list is served.
func (s *Service) Addr() string { return s.listener.Addr().String() }

// GossipAddr answers where gossip is advertised; empty when server.wan.enabled is false, and until the
// pool is open.
func (s *Service) GossipAddr() string {
	open := s.pool.Load()
	if open == nil {
		return ""
	}
	return open.Addr()
}

// Stop says farewell to the pool, then ends the rest. It undoes a Start that failed half-way, too.
func (s *Service) Stop(ctx context.Context) error {
	s.quiesce()
	s.opening.Wait()
	var errs []error
	open := s.pool.Load()
	if open != nil {
		leaving, cancel := context.WithTimeout(ctx, s.cfg.WANGossip.LeaveTimeout)
		defer cancel()
		if err := open.Leave(leaving); err != nil {
			// The others will see a failure instead of a farewell; they know how to live with that.
			s.deps.Telemetry.Log.Warn("gossip was left without a farewell", obs.KeyError, err)
		}
	}
	if s.server != nil {
		s.server.Drain(ctx)
	}
	errs = append(errs, s.group.Stop(ctx))
	if open != nil {
		errs = append(errs, open.Shutdown())
	}
	if s.ca != nil {
		errs = append(errs, s.ca.Close())
		s.ca = nil
	}
	return errors.Join(errs...)
}

func (s *Service) dir() string { return filepath.Join(s.cfg.Server.DataDir, Name) }
