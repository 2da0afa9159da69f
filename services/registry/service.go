package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"konsul.dev/pkg/admission"
	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/requestid"
	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/api"
	"konsul.dev/services/registry/internal/api/access"
	"konsul.dev/services/registry/internal/api/services"
	"konsul.dev/services/registry/internal/audit"
	"konsul.dev/services/registry/internal/backup"
	"konsul.dev/services/registry/internal/badgerstore"
	"konsul.dev/services/registry/internal/catalog"
	"konsul.dev/services/registry/internal/cluster"
	"konsul.dev/services/registry/internal/federation"
	"konsul.dev/services/registry/internal/forward"
	"konsul.dev/services/registry/internal/freespace"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/guard"
	"konsul.dev/services/registry/internal/leading"
	"konsul.dev/services/registry/internal/lease"
	"konsul.dev/services/registry/internal/lineage"
	"konsul.dev/services/registry/internal/member"
	"konsul.dev/services/registry/internal/quota"
	"konsul.dev/services/registry/internal/raftnode"
	"konsul.dev/services/registry/internal/readlease"
	"konsul.dev/services/registry/internal/replication"
	"konsul.dev/services/registry/internal/skew"
	"konsul.dev/services/registry/internal/watch"
	"konsul.dev/services/registry/internal/watching"
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
	// CommandVersion is the highest command version that this server says it understands; 0: what
	// it does. For tests.
	CommandVersion uint32
	// Step is called at each place where the disk changes, with the names of package steps; for
	// tests.
	Step func(step string)
	// Identity replaces the enrolment with the ca; for tests.
	Identity identity.Source
	// Register adds gRPC services to the registry's own; for tests.
	Register func(grpc.ServiceRegistrar)
}

// Service is one registry server.
type Service struct {
	cfg  Config
	deps Deps

	secret  []byte
	initial string // the secret of the initial management token
	host    *konsulfx.Host
	store   *badgerstore.Store
	state   *state
	node    *raftnode.Node
	cluster *cluster.Cluster
	// directory knows where the datacenter's servers are.
	directory *cluster.Directory
	pool      *forward.Pool
	server    *rpc.Server
	audit     *audit.Log
	core      *api.Core
	bearer    *access.Bearer
	watching  *watching.Service
	// replication copies global rows to other datacenters, and from them.
	replication *replication.Service
	backups     *backup.Manager
	clocks      *skew.Meter
	duties      *leading.Duties
	lineage     *lineage.Guard
	listener    net.Listener
	// deadlines are those of the catalogue.
	deadlines *lease.Expirer
	services  *catalog.Writer
	draining  chan struct{}
	drain     sync.Once
	// wired is closed when everything a leader needs is there.
	wired chan struct{}
	// replicator is asked how it is doing, gossip which datacenters there are.
	replicator, gossip *grpc.ClientConn
}

// New checks the configuration and returns a service that has not started.
func New(cfg Config, deps Deps) (*Service, error) {
	cfg.Normalize()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Fail == nil {
		deps.Fail = func(error) {}
	}
	return &Service{cfg: cfg, deps: deps, deadlines: lease.NewExpirer(deps.Clock), draining: make(chan struct{}), wired: make(chan struct{})}, nil
}

// Start acquires everything and returns; it does not wait for a leader. When it fails it leaves
// nothing behind.
func (s *Service) Start(ctx context.Context) error {
	s.host = konsulfx.NewHost(konsulfx.HostParams{Name: Name, Config: s.cfg.Base, Process: konsulfx.Process{
		Telemetry: s.deps.Telemetry, Clock: s.deps.Clock, Fail: s.deps.Fail, Identity: s.deps.Identity,
	}})
	return s.host.Start(ctx, s.Stop,
		s.host.Enroll,
		s.readSecret,
		s.awaitRoom,
		s.open,
		s.openAudit,
		s.join,
		s.serve,
	)
}

func (s *Service) dir(name string) string { return filepath.Join(s.cfg.Server.DataDir, Name, name) }

// readSecret reads the datacenter secret; a test that brings an identity has none.
func (s *Service) readSecret(context.Context) (err error) {
	if s.deps.Identity == nil {
		s.secret, err = identity.ReadSecret(s.cfg.Server.SecretFile, Name)
	}
	return err
}

// awaitRoom waits until the disk has room to start, and looks after it from then on.
func (s *Service) awaitRoom(ctx context.Context) error {
	guard := freespace.Guard{
		Dir: filepath.Join(s.cfg.Server.DataDir, Name), Least: s.cfg.Registry.MinFreeBytes, Free: freespace.Available, Log: s.deps.Telemetry.Log,
	}
	if err := os.MkdirAll(guard.Dir, 0o700); err != nil {
		return fmt.Errorf("make the registry's folder: %w", err)
	}
	guard.Measure(s.deps.Telemetry.Metrics)
	if err := guard.Await(ctx); err != nil {
		return err
	}
	s.host.Go("free space", guard.Run)
	return nil
}

// open opens the store and what is kept in memory of it.
func (s *Service) open(context.Context) error {
	source := s.Identity()
	options := s.cfg.Registry.storeOptions(s.dir("state"), s.deps.Telemetry.Log)
	options.Step = s.deps.Step
	store, err := badgerstore.Open(options)
	if err != nil {
		return err
	}
	s.store = store
	store.Measure(s.deps.Telemetry.Metrics)
	census := lease.NewCensus(s.deps.Telemetry.Metrics)
	foundAs, err := lineage.FoundAs(filepath.Dir(s.dir("state")))
	if err != nil {
		return err
	}
	dc := s.cfg.Server.Datacenter
	s.state = &state{
		store: store, machine: fsm.New(), hub: watch.NewHub(store.Applied(), watch.DefaultLimits()),
		catalog: catalog.NewView(dc, catalog.WithDeadlines(s.deadlines, s.cfg.Registry.Catalog.times(), s.deps.Clock.Now)),
		tokens:  acl.NewView(s.deps.Clock), members: member.NewView(), leases: lease.NewKeeper(s.deps.Clock, lease.EndedAtOnce, s.bounded), census: census,
		federation: federation.NewView(federation.Own{
			FederationID: source.ID().FederationID, Datacenter: dc, PrimaryDatacenter: s.cfg.Server.PrimaryDatacenter,
			GatewayAddresses: s.cfg.Registry.GatewayAddresses, Version: s.deps.Version, NewID: s.datacenterID,
			Started: s.deps.Clock.Now(), NewLineage: uuid.NewString, FoundAs: foundAs,
		}),
	}
	s.deps.Telemetry.Metrics.MustRegister(federation.NewCollector(s.state.federation, s.deps.Clock.Now))
	if err := s.state.load(); err != nil {
		return err
	}
	if f := s.state.federation.Federation(); f != nil && f.GetId() != source.ID().FederationID {
		return fault.New(fault.FailedPrecondition, identity.ReasonMixedFederations,
			"the state in %s is of federation %s, the certificate that the ca gave this server of %s", s.dir("state"), f.GetId(), source.ID().FederationID).
			WithField("server.data_dir").WithRemedy(identity.MixedRemedy)
	}
	s.host.Go("store maintenance", store.Maintain)
	return nil
}

// openAudit opens the audit log.
func (s *Service) openAudit(context.Context) error {
	a := s.cfg.Registry.Audit
	path := cmp.Or(a.Path, s.dir("audit.log"))
	log, err := audit.Open(audit.Params{
		Path: path, DeniedPath: a.deniedPath(path), DeniedPerMinute: a.DeniedPerMinute, MaxBytes: a.MaxBytes, Keep: a.Keep, Datacenter: s.cfg.Server.Datacenter,
		Clock: s.deps.Clock, Metrics: audit.NewMetrics(s.deps.Telemetry.Metrics), Log: s.deps.Telemetry.Log,
	})
	if err != nil {
		return err
	}
	s.audit = log
	s.host.Go("audit log", s.audit.Run)
	return nil
}

// join starts this server's part in the Raft cluster.
func (s *Service) join(context.Context) (err error) {
	if s.initial, err = readToken(s.cfg.Registry.InitialManagementTokenFile); err != nil {
		return err
	}
	if err := leading.CheckInitialToken(s.initial, s.cfg.Server.Datacenter); err != nil {
		return err
	}
	s.directory = cluster.NewDirectory(s.state.members, s.cfg.Registry.addresses())
	s.node, err = raftnode.Start(raftnode.Params{
		Config: s.raftConfig(),
		Store:  s.store, Machine: s.state.machine, Sink: s.state, Stamp: s.stamp, Admit: s.admit, Identity: s.Identity(), Metrics: raftnode.NewMetrics(s.deps.Telemetry.Metrics),
		Log: s.deps.Telemetry.Log, Step: s.deps.Step, Fatal: s.deps.Fail,
		Lead: s.lead, Recall: s.recall, Moved: s.directory.Moved,
	})
	return err
}

// admit refuses commands that a member does not understand.
func (s *Service) admit(version uint32) error {
	if version <= member.Oldest {
		return nil
	}
	servers := s.node.Servers()
	ids := make([]string, len(servers))
	for i, server := range servers {
		ids[i] = server.ID
	}
	return s.state.members.Admit(version, ids)
}

// bounded reports whether every member understands leases that end in several commands.
func (s *Service) bounded() bool { return s.admit(fsm.Bounds) == nil }

func (s *Service) raftConfig() raftnode.Config {
	r := s.cfg.Registry
	return raftnode.Config{
		ID: r.ID, Listen: r.RaftListen, Advertise: r.own().RaftAddress, Dir: s.dir("raft"),
		Timing:        raftnode.Timing{Heartbeat: r.Raft.HeartbeatTimeout, Election: r.Raft.ElectionTimeout, Lease: r.Raft.LeaderLease},
		SnapshotEvery: r.Raft.SnapshotThreshold, TrailingLogs: r.Raft.TrailingLogs, SnapshotBytes: r.Raft.SnapshotBytes, TrailingBytes: r.Raft.TrailingBytes,
		SegmentBytes: r.Raft.SegmentBytes, MaxInFlight: r.Raft.MaxInFlight,
		MaxInFlightBytes: r.Raft.MaxInFlightBytes, ReadLease: min(r.Raft.ReadLease, r.Raft.LeaderLease/2),
	}
}

// lead does a leader's duties until the leadership is over, once everything they need is there.
func (s *Service) lead(ctx context.Context, n *raftnode.Node) {
	select {
	case <-s.wired:
		s.duties.Lead(ctx, n)
	case <-ctx.Done():
	}
}

func (s *Service) newDuties() *leading.Duties {
	return leading.New(leading.Params{
		Datacenter: s.cfg.Server.Datacenter, InitialToken: s.initial, Founding: s.cluster.Founding,
		Loops: []func(context.Context){s.cluster.Lead, s.backups.Run, s.lineage.Keep},
		Store: s.store, Federation: s.state.federation, Tokens: s.state.tokens, Catalog: s.state.catalog, Services: s.services,
		Deadlines: s.deadlines, Leases: s.state.leases, Expired: leading.NewExpired(s.deps.Telemetry.Metrics), Clock: s.deps.Clock,
		Log: s.deps.Telemetry.Log,
	})
}

func (s *Service) newLineage() *lineage.Guard {
	wan := s.cfg.Server.WAN
	return lineage.New(lineage.Params{
		Dir: filepath.Dir(s.dir("state")), Datacenter: s.cfg.Server.Datacenter, WAN: wan.Enabled, Expected: len(wan.Members) + len(wan.Join),
		View: s.state.federation, Connect: s.pool.Datacenter, Gossip: wangossipv1.NewDatacenterServiceClient(s.gossip),
		Met: func() { s.replication.Metrics.OtherLineage() }, Fail: s.deps.Fail, Clock: s.deps.Clock, Log: s.deps.Telemetry.Log,
	})
}

// datacenterID returns the id of this datacenter: derived from its secret, so that every service
// that needs it before the record is founded comes to the same, and a new one where there is no
// secret.
func (s *Service) datacenterID() string {
	id, err := identity.DatacenterID(s.secret, s.cfg.Server.Datacenter)
	if len(s.secret) == 0 || err != nil {
		return uuid.NewString()
	}
	return id
}

// recall takes a read lease back from another server.
func (s *Service) recall(ctx context.Context, server string, lease readlease.Lease) error {
	conn, err := s.pool.Server(server)
	if err != nil {
		return err
	}
	_, err = registryv1.NewProposalServiceClient(conn).RecallReadLease(ctx, &registryv1.RecallReadLeaseRequest{Term: lease.Term, Number: lease.Number})
	return err
}

// stamp returns what the leader writes on a log entry.
func (s *Service) stamp() (time.Time, uint64) { return s.deps.Clock.Now(), s.state.federation.Epoch() }

// mostMessage is above the largest transaction, and what the servers ask each other at once.
const mostMessage = 8 << 20

// serve opens the gRPC face.
func (s *Service) serve(ctx context.Context) error {
	source := s.Identity()
	crossing := forward.NewMetrics(s.deps.Telemetry.Metrics)
	routes, rules, err := methods(s.state.tokens, s.state.catalog)
	if err != nil {
		return fmt.Errorf("read the contracts: %w", err)
	}
	r := s.cfg.Registry
	s.pool = forward.NewPool(source, s.deps.Telemetry, s.directory, s.cfg.Endpoints.Gateway)
	router := forward.New(forward.Params{
		ServerID: r.ID, Routes: routes, Leadership: s.node, Directory: s.state.federation,
		Connections: s.pool, Metrics: crossing, Log: s.deps.Telemetry.Log, NewID: requestid.New,
		Admit: s.admit, Published: s.state.hub.Index, MaxInFlight: r.Raft.MaxInFlight, MaxInFlightBytes: r.Raft.MaxInFlightBytes,
	})
	s.host.Go("leader watch", router.Run)
	s.services = catalog.NewWriter(s.cfg.Server.Datacenter, r.Catalog.MaxServicesPerRequest).WithOwners(services.OwnerExists(s.state.tokens))
	if s.gossip, err = s.host.Dial("wan-gossip", s.cfg.Endpoints.WANGossip); err != nil {
		return err
	}
	s.lineage = s.newLineage()
	s.cluster = s.newCluster(router)
	if s.backups, err = s.newBackups(); err != nil {
		return err
	}
	s.clocks = s.newClocks()
	quotas := quota.New(r.Limits.quotas(), s.deps.Clock, s.state.census.Held, s.deps.Telemetry.Metrics)
	if s.replicator, err = s.host.Dial("replicator", s.cfg.Endpoints.Replicator); err != nil {
		return err
	}
	s.newCore(router, quotas)
	s.newStreams(router, quotas)
	s.duties = s.newDuties()
	close(s.wired)
	door := guard.New(rules, s.audit, quotas)
	s.server, err = rpc.NewServer(rpc.ServerParams{
		Name: Name, Identity: source, Tokens: s.bearer, Refused: door.Refused, Telemetry: s.deps.Telemetry,
		Unary:  []grpc.UnaryServerInterceptor{door.Unary, ownNode(s.state.catalog, door), router.Unary, door.Audited},
		Limits: s.cfg.Server.Limits, MaxMessageBytes: mostMessage,
		Options: []grpc.ServerOption{grpc.ChainStreamInterceptor(door.Stream, router.Streamed)},
	})
	if err != nil {
		return err
	}
	s.register(s.server, router)
	s.watching.Register(s.server)
	s.replication.Register(s.server)
	if s.deps.Register != nil {
		s.deps.Register(s.server)
	}
	if s.listener, err = admission.Bind(ctx, net.ListenConfig{}, "registry.listen", r.Listen); err != nil {
		return err
	}
	s.host.Go("grpc", func(context.Context) error { return s.server.Serve(s.listener) })
	s.host.Go("cluster", s.cluster.Run)
	s.host.Go("clocks", s.clocks.Run)
	s.host.Go("health", s.tellLeader)
	s.server.Serving()
	return nil
}

const leaderPoll = 250 * time.Millisecond

// tellLeader has the health service say whether there is a leader, until ctx ends.
func (s *Service) tellLeader(ctx context.Context) error {
	ticker := time.NewTicker(leaderPoll)
	defer ticker.Stop()
	for {
		state := healthv1.HealthCheckResponse_NOT_SERVING
		if s.node.LeaderID() != "" {
			state = healthv1.HealthCheckResponse_SERVING
		}
		s.server.Health.SetServingStatus(rpc.HealthWrites, state)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// newCluster makes what finds the other servers.
func (s *Service) newCluster(router *forward.Router) *cluster.Cluster {
	r := s.cfg.Registry
	own := r.own()
	return cluster.New(cluster.Params{
		Own:    &registryv1.Member{Id: r.ID, RaftAddress: own.RaftAddress, Address: own.Address, Version: s.deps.Version, CommandVersion: cmp.Or(s.deps.CommandVersion, fsm.Version)},
		Expect: r.BootstrapExpect, Others: r.others(), Datacenter: s.cfg.Server.Datacenter,
		Node: s.node, Rows: s.state.members, Directory: s.directory, Peers: s.pool, Log: s.deps.Telemetry.Log,
		MayFound: s.lineage.MayFound,
		Propose: func(ctx context.Context, cmd *registryv1.Command) (*registryv1.CommandResult, error) {
			outcome := router.Propose(ctx, cmd)[0]
			return outcome.Result, outcome.Err
		},
	})
}

// Ready returns nil when this server is up and knows a leader.
func (s *Service) Ready(context.Context) error {
	if s.node == nil || s.node.LeaderID() == "" {
		why := ""
		if s.cluster != nil && s.cluster.Why() != "" {
			why = ": " + s.cluster.Why()
		}
		return fault.New(fault.Unavailable, fault.ReasonNoLeader, "datacenter %s has no leader%s", s.cfg.Server.Datacenter, why)
	}
	return nil
}

// Identity returns who the service is; nil before Start.
func (s *Service) Identity() identity.Source {
	if s.host == nil {
		return nil
	}
	return s.host.Identity()
}

// IsLeader reports whether this server believes that it leads its datacenter.
func (s *Service) IsLeader() bool { return s.node != nil && s.node.IsLeader() }

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
	if s.host != nil {
		// A leader's loop may still be asking when ctx has ended: a closed connection refuses.
		errs = append(errs, s.host.Stop(ctx))
	}
	if s.audit != nil {
		errs = append(errs, s.audit.Close())
	}
	errs = append(errs, konsulfx.CloseListener(s.listener))
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	return errors.Join(errs...)
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
