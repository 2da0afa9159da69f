// Package registrytest runs registry clusters inside a test, over real sockets and disks, with
// identities of a test authority. Tests only.
package registrytest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"konsul.dev/pkg/clock"
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
}

// Cluster is the servers of one datacenter.
type Cluster struct {
	t       testing.TB
	CA      *identitytest.CA
	DC      string
	Servers []*Server
}

// Server is one server of a cluster. It can be stopped and started again on the same disk.
type Server struct {
	t         testing.TB
	ca        *identitytest.CA
	cfg       registry.Config
	verbose   bool
	service   *registry.Service
	Telemetry *obs.Telemetry
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
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte(Token+"\n"), 0o600))
	var members []registry.Server
	for i := range n {
		members = append(members, registry.Server{ID: fmt.Sprintf("%s-%d", o.Datacenter, i+1), RaftAddress: konsultest.FreeAddress(t), Address: konsultest.FreeAddress(t)})
	}
	c := &Cluster{t: t, CA: o.CA, DC: o.Datacenter}
	for _, member := range members {
		cfg := registry.DefaultConfig()
		cfg.Server.Datacenter, cfg.Server.PrimaryDatacenter = o.Datacenter, o.Primary
		cfg.Server.Node, cfg.Server.DataDir, cfg.Server.SecretFile = member.ID, t.TempDir(), "unused"
		cfg.Endpoints.Gateway = o.Gateway
		cfg.Registry.ID, cfg.Registry.Servers = member.ID, members
		cfg.Registry.Listen, cfg.Registry.RaftListen = member.Address, member.RaftAddress
		cfg.Registry.Raft.SegmentBytes = 4 << 20
		if o.Primary == o.Datacenter {
			cfg.Registry.InitialManagementTokenFile = token
		}
		if o.Adjust != nil {
			o.Adjust(&cfg)
		}
		s := &Server{t: t, ca: o.CA, cfg: cfg, verbose: o.Verbose, Failed: make(chan error, 1)}
		c.Servers = append(c.Servers, s)
		t.Cleanup(func() { s.Kill() })
	}
	return c
}

// ID is the server's id.
func (s *Server) ID() string { return s.cfg.Registry.ID }

// Address is where it serves gRPC.
func (s *Server) Address() string { return s.cfg.Registry.Listen }

// Start starts a stopped server on what it left on its disk.
func (s *Server) Start() {
	s.t.Helper()
	s.Telemetry = obs.Discard()
	if s.verbose {
		s.Telemetry.Log = slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("server", s.ID())
	}
	service, err := registry.New(s.cfg, registry.Deps{
		Telemetry: s.Telemetry, Clock: clock.System(), Version: "test",
		Identity: s.ca.Source(s.cfg.Server.Datacenter, registry.Name),
		Fail: func(err error) {
			select {
			case s.Failed <- err:
			default:
			}
		},
	})
	require.NoError(s.t, err)
	require.NoError(s.t, service.Start(context.Background()))
	s.service = service
}

// Snapshot makes the server take a Raft snapshot now.
func (s *Server) Snapshot() error { return s.service.Snapshot() }

// Running says whether the server is started.
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

// Leader waits for a leader among the running servers and answers it.
func (c *Cluster) Leader() *Server {
	c.t.Helper()
	var leader *Server
	c.Eventually(func() error {
		for _, s := range c.Servers {
			if s.Running() && s.service.Leads() {
				leader = s
				return nil
			}
		}
		return fmt.Errorf("no leader in %s", c.DC)
	})
	return leader
}

// Follower answers a running server that does not lead.
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

// Client talks to one server as the datacenter's gateway, on behalf of the management token's holder.
type Client struct {
	t           testing.TB
	KV          registryv1.KVServiceClient
	Catalog     registryv1.CatalogServiceClient
	Watch       registryv1.WatchServiceClient
	Operator    registryv1.OperatorServiceClient
	Trust       registryv1.TrustServiceClient
	Tokens      registryv1.TokenServiceClient
	Federation  federationv1.FederationServiceClient
	Replication federationv1.ReplicationServiceClient
}

// Client answers a client of one server.
func (c *Cluster) Client(s *Server) *Client { return c.ClientAs(s, c.DC, "gateway") }

// ClientAs answers a client with the identity of a service of a datacenter.
func (c *Cluster) ClientAs(s *Server, dc, service string) *Client {
	c.t.Helper()
	return NewClient(c.t, c.CA.Source(dc, service), c.DC, s.Address())
}

// NewClient dials a registry of a datacenter.
func NewClient(t testing.TB, source identity.Source, dc, address string) *Client {
	t.Helper()
	conn, err := rpc.Dial([]string{address}, rpc.ClientParams{
		Identity: source, Want: identity.Want{Datacenter: dc, Service: registry.Name}, Telemetry: obs.Discard(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return clientOn(t, conn)
}

func clientOn(t testing.TB, conn grpc.ClientConnInterface) *Client {
	return &Client{
		t: t, KV: registryv1.NewKVServiceClient(conn), Catalog: registryv1.NewCatalogServiceClient(conn),
		Watch: registryv1.NewWatchServiceClient(conn), Operator: registryv1.NewOperatorServiceClient(conn),
		Trust: registryv1.NewTrustServiceClient(conn), Tokens: registryv1.NewTokenServiceClient(conn),
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
