// Package registrytest runs registry clusters inside a test, over real sockets and disks, with
// identities of a test authority. Tests only.
package registrytest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/pkg/konsultest"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry"
)

// Token is the management token of every test cluster.
const Token = "registrytest-management-token-0123456789"

// Patience is how long tests wait for what must happen.
const Patience = 20 * time.Second

// Options shape a cluster.
type Options struct {
	// Datacenter and Primary default to "dc1".
	Datacenter, Primary string
	// CA is the federation's authority; nil: a new one.
	CA *identitytest.CA
	// Gateway is what the servers dial to reach other datacenters.
	Gateway []string
	// Verbose logs to the test's output.
	Verbose bool
	// Adjust changes the configuration of each server.
	Adjust func(*registry.Config)
	// Wired lays a wire to each server's Raft listener, which Cut cuts.
	Wired bool
	// ByExpect makes the servers find each other by registry.join and bootstrap_expect.
	ByExpect bool
	// Register adds gRPC services to a server's own.
	Register func(server string, r grpc.ServiceRegistrar)
}

// Cluster is the servers of one datacenter.
type Cluster struct {
	t       testing.TB
	CA      *identitytest.CA
	DC      string
	Servers []*Server

	options Options
	token   string
}

// Server is one server of a cluster. It can be stopped and started again on the same disk.
type Server struct {
	t       testing.TB
	ca      *identitytest.CA
	cfg     registry.Config
	verbose bool
	// register adds gRPC services; nil: none.
	register func(grpc.ServiceRegistrar)
	service  *registry.Service
	wire     *wire
	wall     wallClock
	// Understands is the command version the server announces at its next start; 0: that of the
	// program.
	Understands uint32
	Telemetry   *obs.Telemetry
	// Failed receives what made the service give up.
	Failed chan error
}

// StartCluster starts n servers with default options and waits for a leader.
func StartCluster(t testing.TB, n int) *Cluster { return Start(t, n, Options{}) }

// Start starts n servers and waits until they serve.
func Start(t testing.TB, n int, o Options) *Cluster {
	t.Helper()
	c := Prepare(t, n, o)
	for _, s := range c.Servers {
		s.Start()
	}
	c.WaitReady()
	return c
}

// Prepare lays out n servers without starting them.
func Prepare(t testing.TB, n int, o Options) *Cluster {
	t.Helper()
	if o.Datacenter == "" {
		o.Datacenter = "dc1"
	}
	if o.Primary == "" {
		o.Primary = o.Datacenter
	}
	if o.CA == nil {
		o.CA = identitytest.NewCA(t, uuid.NewString())
	}
	c := &Cluster{t: t, CA: o.CA, DC: o.Datacenter, options: o, token: filepath.Join(t.TempDir(), "token")}
	require.NoError(t, os.WriteFile(c.token, []byte(Token+"\n"), 0o600))
	var members []registry.Server
	for i := range n {
		members = append(members, registry.Server{ID: fmt.Sprintf("%s-%d", o.Datacenter, i+1), RaftAddress: konsultest.FreeAddress(t), Address: konsultest.FreeAddress(t)})
	}
	wires := make([]*wire, n)
	listen := slices.Clone(members)
	for i := range members {
		if o.Wired {
			wires[i] = layWire(t, members[i].RaftAddress)
			members[i].RaftAddress = wires[i].address()
		}
	}
	for i, member := range listen {
		cfg := c.config(member)
		cfg.Registry.Servers = members
		if o.ByExpect {
			cfg.Registry.Servers, cfg.Registry.BootstrapExpect = nil, n
			for _, other := range members {
				cfg.Registry.Join = append(cfg.Registry.Join, other.Address)
			}
		}
		c.add(cfg).wire = wires[i]
	}
	return c
}

func (c *Cluster) config(member registry.Server) registry.Config {
	cfg := registry.DefaultConfig()
	cfg.Server.Datacenter, cfg.Server.PrimaryDatacenter = c.options.Datacenter, c.options.Primary
	cfg.Server.Node, cfg.Server.DataDir, cfg.Server.SecretFile = member.ID, c.t.TempDir(), "unused"
	cfg.Endpoints.Gateway = c.options.Gateway
	cfg.Registry.ID, cfg.Registry.Listen, cfg.Registry.RaftListen = member.ID, member.Address, member.RaftAddress
	cfg.Registry.Raft.SegmentBytes = 4 << 20
	if c.options.Primary == c.options.Datacenter {
		cfg.Registry.InitialManagementTokenFile = c.token
	}
	return cfg
}

func (c *Cluster) add(cfg registry.Config) *Server {
	if c.options.Adjust != nil {
		c.options.Adjust(&cfg)
	}
	s := &Server{t: c.t, ca: c.CA, cfg: cfg, verbose: c.options.Verbose, Failed: make(chan error, 1)}
	if c.options.Register != nil {
		s.register = func(r grpc.ServiceRegistrar) { c.options.Register(s.ID(), r) }
	}
	c.Servers = append(c.Servers, s)
	c.t.Cleanup(func() { s.Kill() })
	return s
}

// Grow starts one more server, which joins the cluster through those that exist.
func (c *Cluster) Grow() *Server {
	c.t.Helper()
	s := c.Prepare()
	s.Start()
	return s
}

// Prepare lays out one more server without starting it.
func (c *Cluster) Prepare() *Server {
	c.t.Helper()
	cfg := c.config(registry.Server{
		ID: fmt.Sprintf("%s-%d", c.DC, len(c.Servers)+1), RaftAddress: konsultest.FreeAddress(c.t), Address: konsultest.FreeAddress(c.t),
	})
	cfg.Registry.Join = c.Addresses()
	return c.add(cfg)
}

// Wipe takes a stopped server's disk away.
func (s *Server) Wipe() {
	s.t.Helper()
	require.False(s.t, s.Running(), "a running server keeps its disk")
	require.NoError(s.t, os.RemoveAll(s.cfg.Server.DataDir))
	require.NoError(s.t, os.MkdirAll(s.cfg.Server.DataDir, 0o700))
}

// Recover makes the server the only voter of its cluster, and returns what it said. The server
// should be stopped.
func (s *Server) Recover(dryRun bool) (string, error) {
	s.t.Helper()
	var said strings.Builder
	err := registry.Recover(context.Background(), s.cfg, dryRun, &said)
	return said.String(), err
}

// Dir is the folder of one of its parts, such as "raft".
func (s *Server) Dir(part string) string {
	return filepath.Join(s.cfg.Server.DataDir, registry.Name, part)
}

// Cut lets no Raft message reach the server, until Heal. The cluster must be Wired.
func (s *Server) Cut() { s.wire.set(true) }

// Heal undoes Cut.
func (s *Server) Heal() { s.wire.set(false) }

// Stall lets so many bytes of Raft's pass to or from the server's listener. A connection that has
// more to carry stands still for good and stays open, as to a leader that is paused; a negative
// number stalls no more of them. The cluster must be Wired.
func (s *Server) Stall(bytes int) { s.wire.stall(bytes) }

// Configure changes the configuration of a stopped server.
func (s *Server) Configure(change func(*registry.Config)) { change(&s.cfg) }

// Enrol gives a stopped server identities of another authority from now on, and returns the one it
// had.
func (s *Server) Enrol(ca *identitytest.CA) (before *identitytest.CA) {
	s.t.Helper()
	require.False(s.t, s.Running(), "a running server keeps its identity")
	before, s.ca = s.ca, ca
	return before
}

// Ready returns nil when the server knows a leader, and else what it waits for.
func (s *Server) Ready() error { return s.service.Ready(context.Background()) }

// ID is the server's id.
func (s *Server) ID() string { return s.cfg.Registry.ID }

// DataDir is the folder below which it keeps its files.
func (s *Server) DataDir() string { return s.cfg.Server.DataDir }

// Address is where it serves gRPC.
func (s *Server) Address() string { return s.cfg.Registry.Listen }

// RaftAddress is where it listens for its Raft peers.
func (s *Server) RaftAddress() string { return s.cfg.Registry.RaftListen }

// Start starts a stopped server on what it left on its disk.
func (s *Server) Start() {
	s.t.Helper()
	require.NoError(s.t, s.TryStart())
}

// TryStart is Start for a server that may refuse.
func (s *Server) TryStart() error {
	s.Telemetry = obs.Discard()
	if s.verbose {
		s.Telemetry.Log = slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("server", s.ID())
	}
	service, err := registry.New(s.cfg, registry.Deps{
		Telemetry: s.Telemetry, Clock: &s.wall, Version: "test", CommandVersion: s.Understands,
		Identity: s.ca.Source(s.cfg.Server.Datacenter, registry.Name), Register: s.register,
		Fail: func(err error) {
			select {
			case s.Failed <- err:
			default:
			}
		},
	})
	if err != nil {
		return err
	}
	if err := service.Start(context.Background()); err != nil {
		return err
	}
	s.service = service
	return nil
}

// Snapshot makes the server take a Raft snapshot now.
func (s *Server) Snapshot() error { return s.service.Snapshot() }

// ShiftClock moves the server's wall clock. Its monotonic clock stays.
func (s *Server) ShiftClock(by time.Duration) { s.wall.offset.Add(int64(by)) }

// wallClock is the machine's clock, shifted.
type wallClock struct{ offset atomic.Int64 }

// Now returns a time without a monotonic reading once the clock was shifted.
func (c *wallClock) Now() time.Time {
	if by := time.Duration(c.offset.Load()); by != 0 {
		return time.Now().Round(0).Add(by)
	}
	return time.Now()
}

func (c *wallClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// Running reports whether the server is started.
func (s *Server) Running() bool { return s.service != nil }

// Stop ends the server gracefully.
func (s *Server) Stop() {
	s.t.Helper()
	if s.service == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	require.NoError(s.t, s.service.Stop(ctx))
	s.service = nil
}

// Kill ends the server at once: no handover, no drain.
func (s *Server) Kill() {
	if s.service == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.service.Stop(ctx) // It was not given the time to stop well, and says so.
	s.service = nil
}

// WaitReady waits until every running server knows a leader and accepts the token.
func (c *Cluster) WaitReady() {
	c.t.Helper()
	for _, s := range c.Servers {
		if !s.Running() {
			continue
		}
		cl := c.Client(s)
		c.Eventually(func() error {
			if _, err := cl.Federation.GetFederation(cl.ctx(), &federationv1.GetFederationRequest{}); err != nil {
				return err
			}
			_, err := cl.KV.List(cl.Ctx(), &registryv1.ListRequest{Limit: 1})
			if c.Servers[0].cfg.Registry.InitialManagementTokenFile == "" {
				return nil // A secondary knows no token before replication brings it.
			}
			return err
		})
	}
}

// Eventually waits until check answers nil.
func (c *Cluster) Eventually(check func() error) {
	c.t.Helper()
	Eventually(c.t, check)
}

// Eventually waits until check answers nil.
func Eventually(t testing.TB, check func() error) {
	t.Helper()
	deadline := time.Now().Add(Patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			require.NoError(t, err, "waited %v", Patience)
		}
		<-tick.C
	}
}

// Throughout fails the test if check does, again and again until so long has passed.
func Throughout(t testing.TB, span time.Duration, check func() error) {
	t.Helper()
	end := time.After(span)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		require.NoError(t, check())
		select {
		case <-end:
			return
		case <-tick.C:
		}
	}
}

// Leader waits for a leader among the running servers and returns it.
func (c *Cluster) Leader() *Server {
	c.t.Helper()
	var leader *Server
	c.Eventually(func() error {
		for _, s := range c.Servers {
			if s.Running() && s.service.IsLeader() {
				leader = s
				return nil
			}
		}
		return fmt.Errorf("no leader in %s", c.DC)
	})
	return leader
}

// Follower returns a running server that does not lead.
func (c *Cluster) Follower() *Server {
	c.t.Helper()
	leader := c.Leader()
	for _, s := range c.Servers {
		if s.Running() && s != leader {
			return s
		}
	}
	c.t.Fatal("no follower is running")
	return nil
}

// Client talks to one server as the datacenter's gateway, on behalf of the management token's
// holder.
type Client struct {
	t           testing.TB
	KV          registryv1.KVServiceClient
	Leases      registryv1.LeaseServiceClient
	Locks       registryv1.LockServiceClient
	Catalog     registryv1.CatalogServiceClient
	Watch       registryv1.WatchServiceClient
	Operator    registryv1.OperatorServiceClient
	Trust       registryv1.TrustServiceClient
	Proposals   registryv1.ProposalServiceClient
	Tokens      registryv1.TokenServiceClient
	ACL         registryv1.ACLServiceClient
	Backup      registryv1.BackupServiceClient
	Federation  federationv1.FederationServiceClient
	Replication federationv1.ReplicationServiceClient
}

// Client returns a client of one server.
func (c *Cluster) Client(s *Server) *Client { return c.ClientAs(s, c.DC, "gateway") }

// ClientAs returns a client with the identity of a service of a datacenter.
func (c *Cluster) ClientAs(s *Server, dc, service string) *Client {
	c.t.Helper()
	return NewClient(c.t, c.CA.Source(dc, service), c.DC, s.Address())
}

// Conn returns a connection to one server with the identity of a service of a datacenter.
func (c *Cluster) Conn(s *Server, dc, service string) *grpc.ClientConn {
	c.t.Helper()
	return dial(c.t, c.CA.Source(dc, service), c.DC, s.Address())
}

// NewClient dials a registry of a datacenter.
func NewClient(t testing.TB, source identity.Source, dc, address string) *Client {
	t.Helper()
	return clientOn(t, dial(t, source, dc, address))
}

func dial(t testing.TB, source identity.Source, dc, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := rpc.Dial([]string{address}, rpc.ClientParams{
		Identity: source, Want: identity.Want{Datacenter: dc, Service: registry.Name}, Telemetry: obs.Discard(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func clientOn(t testing.TB, conn grpc.ClientConnInterface) *Client {
	return &Client{
		t: t, KV: registryv1.NewKVServiceClient(conn), Leases: registryv1.NewLeaseServiceClient(conn), Locks: registryv1.NewLockServiceClient(conn),
		Catalog: registryv1.NewCatalogServiceClient(conn),
		Watch:   registryv1.NewWatchServiceClient(conn), Operator: registryv1.NewOperatorServiceClient(conn),
		Trust: registryv1.NewTrustServiceClient(conn), Proposals: registryv1.NewProposalServiceClient(conn), Tokens: registryv1.NewTokenServiceClient(conn),
		ACL: registryv1.NewACLServiceClient(conn), Backup: registryv1.NewBackupServiceClient(conn),
		Federation: federationv1.NewFederationServiceClient(conn), Replication: federationv1.NewReplicationServiceClient(conn),
	}
}

// Ctx is the test's context with the management token and a deadline.
func (c *Client) Ctx() context.Context { return rpc.WithToken(c.ctx(), Token) }

func (c *Client) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	c.t.Cleanup(cancel)
	return ctx
}

// As is the test's context with a token of the test's own.
func (c *Client) As(secret string) context.Context { return rpc.WithToken(c.ctx(), secret) }

// Bare is the test's context without a token.
func (c *Client) Bare() context.Context { return c.ctx() }

// Addresses is where the servers serve gRPC.
func (c *Cluster) Addresses() []string {
	var out []string
	for _, s := range c.Servers {
		out = append(out, s.Address())
	}
	return out
}

// SetGateway tells servers that have not started what to dial for other datacenters.
func (c *Cluster) SetGateway(addresses []string) {
	for _, s := range c.Servers {
		s.cfg.Endpoints.Gateway = addresses
	}
}
