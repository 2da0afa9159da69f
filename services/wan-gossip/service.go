package wangossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
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
	"konsul.dev/services/wan-gossip/internal/joiner"
	"konsul.dev/services/wan-gossip/internal/keyfile"
	"konsul.dev/services/wan-gossip/internal/members"
	"konsul.dev/services/wan-gossip/internal/roundtrip"
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
	pool     *serfpool.Pool
	joiner   *joiner.Joiner
	server   *rpc.Server
	listener net.Listener
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

// Start gets an identity and the gossip keys, binds both ports and begins to look for the other
// datacenters. It does not wait for them.
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
	if err := s.introduce(); err != nil {
		return err
	}
	if err := s.deps.Telemetry.Metrics.Register(datacenters.NewCollector(s.view)); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	if s.cfg.Server.WAN.Enabled {
		err = s.gossip(ctx, quiet)
	} else {
		alone := members.Parse(s.self.Name, s.cfg.Server.WAN.BindAddr, members.Alive, s.self.Tags())
		s.view.SetMembers([]members.Member{alone}, s.deps.Clock.Now())
	}
	if err != nil {
		return err
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
func (s *Service) introduce() error {
	secret, err := identity.ReadSecret(s.cfg.Server.SecretFile)
	if err != nil {
		return err
	}
	id, err := datacenterID(filepath.Join(s.dir(), "dcid"), s.cfg.Server.Datacenter, secret)
	if err != nil {
		return err
	}
	s.self = members.Self{
		Name:       s.cfg.Server.Node + "." + s.cfg.Server.Datacenter,
		Federation: s.identity.ID().FederationID, Datacenter: s.cfg.Server.Datacenter, DatacenterID: id,
		Gateways: gateways(s.cfg), Version: s.deps.Version,
	}
	box, err := keyfile.New(filepath.Join(s.dir(), "gossip.key"), s.cfg.Server.Datacenter, secret)
	if err != nil {
		return err
	}
	s.ca, err = rpc.Dial(s.cfg.Endpoints.CA, rpc.ClientParams{
		Identity: s.identity, Want: identity.Want{Service: "ca"}, Telemetry: s.deps.Telemetry,
	})
	if err != nil {
		return err
	}
	s.keys = &keys{box: box, ca: cav1.NewCertificateServiceClient(s.ca), log: s.deps.Telemetry.Log}
	s.peers = &peers{path: filepath.Join(s.dir(), "peers.json"), own: s.self.Name, log: s.deps.Telemetry.Log}
	if s.metrics, err = serfpool.NewMetrics(s.deps.Telemetry.Metrics); err != nil {
		return err
	}
	s.gate, err = newGate(s.self, s.deps.Telemetry, s.deps.Clock)
	return err
}

// gossip opens the pool and starts its loops; those that must end before the farewell end with quiet.
func (s *Service) gossip(ctx, quiet context.Context) error {
	gossipKeys, err := s.keys.obtain(ctx)
	if err != nil {
		return err
	}
	poolConfig, err := s.poolConfig(ctx, gossipKeys)
	if err != nil {
		return err
	}
	s.pool, err = serfpool.Open(poolConfig)
	if err != nil {
		return err
	}
	s.joiner = joiner.New(joiner.Params{
		Seeds: append(append([]string{}, s.cfg.Server.WAN.Members...), s.cfg.Server.WAN.Join...),
		Peers: s.peers.load(), Lookup: s.deps.Lookup,
		Join: func(address string) error { return s.gate.counted(s.pool.Join(address)) }, Connected: s.connected,
		RetryMin: s.cfg.WANGossip.RetryMin, RetryMax: s.cfg.WANGossip.RetryMax, Log: s.deps.Telemetry.Log,
	})
	prober := roundtrip.Prober{
		Own: s.cfg.Server.Datacenter, Interval: s.cfg.WANGossip.ProbeInterval, Pinger: s.pool, Members: s.pool.Members,
		Publish: func(measured map[string]time.Duration) { s.view.SetRoundTrips(measured, s.deps.Clock.Now()) },
	}
	s.group.Go("gossip", func(ctx context.Context) error { return s.pool.Run(ctx, s.changed) })
	s.group.Go("join", func(context.Context) error { return s.joiner.Run(quiet) })
	s.group.Go("measure round trips", func(context.Context) error { return prober.Run(quiet) })
	s.group.Go("refresh gossip keys", func(context.Context) error {
		return s.keys.refresh(quiet, s.cfg.WANGossip.KeyRefresh, s.pool.SetKeys)
	})
	return nil
}

// changed is told each time the members have changed.
func (s *Service) changed(all []members.Member) {
	s.view.SetMembers(all, s.deps.Clock.Now())
	s.peers.remember(all)
}

func (s *Service) connected() []string {
	addresses := []string{s.pool.Addr()}
	for _, m := range s.pool.Members() {
		if m.Up() {
			addresses = append(addresses, m.Address)
		}
	}
	return addresses
}

func (s *Service) serve(ctx context.Context, stopping <-chan struct{}) (err error) {
	s.server, err = rpc.NewServer(rpc.ServerParams{Name: Name, Identity: s.identity, Access: api.Access(), Telemetry: s.deps.Telemetry})
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
	if s.joiner == nil {
		return nil
	}
	list, _ := s.view.Current()
	if refusal := s.joiner.Refusal(); refusal != nil && datacenters.Connected(list) < 2 {
		return fault.New(fault.FailedPrecondition, ReasonRefused, "%s", refusal.Text).WithRemedy(refusal.Remedy)
	}
	return nil
}

// Identity answers who this service is; nil before Start.
func (s *Service) Identity() identity.Source { return s.identity }

// Addr answers where the list is served.
func (s *Service) Addr() string { return s.listener.Addr().String() }

// GossipAddr answers where gossip is advertised; empty when server.wan.enabled is false.
func (s *Service) GossipAddr() string {
	if s.pool == nil {
		return ""
	}
	return s.pool.Addr()
}

// Stop says farewell to the pool, then ends the rest. It undoes a Start that failed half-way, too.
func (s *Service) Stop(ctx context.Context) error {
	s.quiesce()
	var errs []error
	if s.pool != nil {
		leaving, cancel := context.WithTimeout(ctx, s.cfg.WANGossip.LeaveTimeout)
		defer cancel()
		if err := s.pool.Leave(leaving); err != nil {
			// The others will see a failure instead of a farewell; they know how to live with that.
			s.deps.Telemetry.Log.Warn("gossip was left without a farewell", obs.KeyError, err)
		}
	}
	if s.server != nil {
		s.server.Drain(ctx)
	}
	errs = append(errs, s.group.Stop(ctx))
	if s.pool != nil {
		errs = append(errs, s.pool.Shutdown())
	}
	if s.ca != nil {
		errs = append(errs, s.ca.Close())
		s.ca = nil
	}
	return errors.Join(errs...)
}

func (s *Service) dir() string { return filepath.Join(s.cfg.Server.DataDir, Name) }
