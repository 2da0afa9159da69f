package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/google/uuid"
	"google.golang.org/grpc"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/lifecycle"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/api"
	"konsul.dev/services/registry/internal/badgerstore"
	"konsul.dev/services/registry/internal/catalog"
	"konsul.dev/services/registry/internal/federation"
	"konsul.dev/services/registry/internal/forward"
	"konsul.dev/services/registry/internal/kv"
	"konsul.dev/services/registry/internal/raftnode"
	"konsul.dev/services/registry/internal/watch"
)

// Name is the service's name in identities, metrics and logs.
const Name = forward.Service

// Deps is what a service needs from its process.
type Deps struct {
	Telemetry *obs.Telemetry
	Clock     clock.Clock
	// Version is the program's version.
	Version string
	// Fail is called, once, when the service cannot go on.
	Fail func(error)
	// Identity replaces the enrolment with the ca; for tests.
	Identity identity.Source
}

// Service is one registry server.
type Service struct {
	cfg  Config
	deps Deps

	secret   []byte
	group    *lifecycle.Group
	store    *badgerstore.Store
	state    *state
	node     *raftnode.Node
	pool     *forward.Pool
	server   *rpc.Server
	core     *api.Core
	listener net.Listener
	identity identity.Source
	draining chan struct{}
	drain    sync.Once
}

// New checks the configuration and answers a service that has not started.
func New(cfg Config, deps Deps) (*Service, error) {
	cfg.Normalize()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Fail == nil {
		deps.Fail = func(error) {}
	}
	return &Service{cfg: cfg, deps: deps, draining: make(chan struct{})}, nil
}

// Start acquires everything and returns; it does not wait for a leader. When it fails it leaves
// nothing behind.
func (s *Service) Start(ctx context.Context) (err error) {
	s.group = lifecycle.NewGroup(s.deps.Telemetry.Log, s.deps.Fail)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
		}
	}()
	source, err := s.enroll(ctx)
	if err != nil {
		return err
	}
	if err := s.open(source); err != nil {
		return err
	}
	if err := s.join(source); err != nil {
		return err
	}
	return s.serve(source)
}

func (s *Service) dir(name string) string { return filepath.Join(s.cfg.Server.DataDir, Name, name) }

// enroll gets this service's identity.
func (s *Service) enroll(ctx context.Context) (identity.Source, error) {
	source := s.deps.Identity
	if source == nil {
		enrolled, err := identity.Enroll(ctx, identity.ConfigFor(s.cfg.Base, Name, s.deps.Telemetry))
		if err != nil {
			return nil, fmt.Errorf("enroll with the ca: %w", err)
		}
		s.group.Go("identity renewal", enrolled.Run)
		source = enrolled
		if s.secret, err = identity.ReadSecret(s.cfg.Server.SecretFile); err != nil {
			return nil, err
		}
	}
	s.identity = source
	return source, nil
}

// open opens the store and what is kept in memory of it.
func (s *Service) open(source identity.Source) error {
	store, err := badgerstore.Open(badgerstore.DefaultOptions(s.dir("state"), s.deps.Telemetry.Log))
	if err != nil {
		return err
	}
	s.store = store
	dc := s.cfg.Server.Datacenter
	s.state = &state{
		store: store, hub: watch.NewHub(store.Applied()), catalog: catalog.NewView(dc), tokens: acl.NewView(),
		federation: federation.NewView(federation.Own{
			FederationID: source.ID().FederationID, Datacenter: dc, PrimaryDatacenter: s.cfg.Server.PrimaryDatacenter,
			GatewayAddresses: s.cfg.Registry.GatewayAddresses, Version: s.deps.Version, NewID: s.datacenterID,
		}),
	}
	if err := s.state.load(); err != nil {
		return err
	}
	s.group.Go("store maintenance", store.Maintain)
	return nil
}

// join starts this server's part in the Raft cluster.
func (s *Service) join(source identity.Source) error {
	metrics, err := raftnode.NewMetrics(s.deps.Telemetry.Metrics)
	if err != nil {
		return fmt.Errorf("register raft metrics: %w", err)
	}
	r := s.cfg.Registry
	servers := make([]raftnode.Server, len(r.Servers))
	for i, server := range r.Servers {
		servers[i] = raftnode.Server{ID: server.ID, Address: server.RaftAddress}
	}
	duties, err := s.duties()
	if err != nil {
		return err
	}
	s.node, err = raftnode.Start(raftnode.Params{
		Config: raftnode.Config{
			ID: r.ID, Listen: r.RaftListen, Advertise: r.RaftAdvertise, Servers: servers, Dir: s.dir("raft"),
			Timing:        raftnode.Timing{Heartbeat: r.Raft.HeartbeatTimeout, Election: r.Raft.ElectionTimeout, Lease: r.Raft.LeaderLease},
			SnapshotEvery: r.Raft.SnapshotThreshold, TrailingLogs: r.Raft.TrailingLogs, SegmentBytes: r.Raft.SegmentBytes, MaxInFlight: r.Raft.MaxInFlight,
		},
		Store: s.store, Sink: s.state, Identity: source, Metrics: metrics, Log: s.deps.Telemetry.Log, Fatal: s.deps.Fail,
		Lead: duties.lead,
	})
	return err
}

// serve opens the gRPC face.
func (s *Service) serve(source identity.Source) error {
	metrics, err := api.NewMetrics(s.deps.Telemetry.Metrics)
	if err != nil {
		return fmt.Errorf("register api metrics: %w", err)
	}
	crossing, err := forward.NewMetrics(s.deps.Telemetry.Metrics)
	if err != nil {
		return fmt.Errorf("register forwarding metrics: %w", err)
	}
	r := s.cfg.Registry
	addresses := map[string]string{}
	for _, server := range r.Servers {
		addresses[server.ID] = server.Address
	}
	s.pool = forward.NewPool(source, s.deps.Telemetry, addresses, s.cfg.Endpoints.Gateway)
	router := forward.New(forward.Params{
		ServerID: r.ID, Routes: routes(), Leadership: s.node, Directory: s.state.federation,
		Connections: s.pool, Metrics: crossing, Log: s.deps.Telemetry.Log, NewID: uuid.NewString,
	})
	s.group.Go("leader watch", router.Run)
	s.core = s.newCore(router, metrics)
	s.server, err = rpc.NewServer(rpc.ServerParams{
		Name: Name, Identity: source, Access: api.Access(), Tokens: api.TokenChecker{Tokens: s.state.tokens}, Telemetry: s.deps.Telemetry,
		Options: []grpc.ServerOption{grpc.ChainUnaryInterceptor(router.Unary)},
	})
	if err != nil {
		return err
	}
	s.core.Register(s.server)
	s.listener, err = net.Listen("tcp", r.Listen)
	if err != nil {
		return raftnode.ListenFailed("registry.listen", r.Listen, err)
	}
	s.group.Go("grpc", func(context.Context) error { return s.server.Serve(s.listener) })
	s.server.Serving()
	return nil
}

func (s *Service) newCore(router *forward.Router, metrics *api.Metrics) *api.Core {
	dc := s.cfg.Server.Datacenter
	return &api.Core{
		ServerID: s.cfg.Registry.ID, Version: s.deps.Version, Node: member{s.node}, Store: s.store, Hub: s.state.hub,
		Catalog: s.state.catalog, Tokens: s.state.tokens, Federation: s.state.federation,
		KV:       kv.Writer{Datacenter: dc, MaxValueBytes: s.cfg.Registry.MaxValueBytes},
		Services: catalog.NewWriter(dc), Joiner: federation.NewJoiner(dc), Router: router, Peers: s.pool,
		Clock: s.deps.Clock, Metrics: metrics, Log: s.deps.Telemetry.Log, Draining: s.draining,
	}
}

// Ready answers nil when this server is up and knows a leader.
func (s *Service) Ready(context.Context) error {
	if s.node == nil || s.node.LeaderID() == "" {
		return fault.New(fault.Unavailable, fault.ReasonNoLeader, "datacenter %s has no leader", s.cfg.Server.Datacenter)
	}
	return nil
}

// Identity answers who the service is; nil before Start.
func (s *Service) Identity() identity.Source { return s.identity }

// Leads says whether this server leads its datacenter now.
func (s *Service) Leads() bool { return s.node != nil && s.node.Leads() }

// Snapshot takes a Raft snapshot now, for tests and operators.
func (s *Service) Snapshot() error { return s.node.Snapshot() }

// Address is where gRPC is served, once started.
func (s *Service) Address() string { return s.listener.Addr().String() }

// Stop hands leadership over, ends streams, drains calls until ctx ends, and closes the store.
func (s *Service) Stop(ctx context.Context) error {
	s.drain.Do(func() { close(s.draining) })
	var errs []error
	if s.server != nil {
		if s.node != nil {
			s.node.HandOver(ctx)
		}
		s.server.Drain(ctx)
	}
	if s.node != nil {
		errs = append(errs, s.node.Stop(ctx))
	}
	if s.pool != nil {
		errs = append(errs, s.pool.Close())
	}
	if s.group != nil {
		errs = append(errs, s.group.Stop(ctx))
	}
	if s.listener != nil {
		if err := s.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	return errors.Join(errs...)
}

// member is the Raft node as the api sees it.
type member struct{ *raftnode.Node }

func (m member) Status() api.Status { return api.Status(m.Node.Status()) }

func (m member) Servers() []api.Server {
	var out []api.Server
	for _, s := range m.Node.Servers() {
		out = append(out, api.Server(s))
	}
	return out
}

func readToken(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fault.Invalid("registry.initial_management_token_file", "cannot be read: %v", err).
			WithRemedy("write a random token into it, or leave the setting out")
	}
	return string(b), nil
}
