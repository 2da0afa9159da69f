package arena

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"

	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry"
)

// token is the management token of every cluster here.
const token = "arena-management-token-0123456789abcdef"

// Cluster is the servers of one registry.
type Cluster struct {
	Servers []*Server
	gateway identity.Source
	clients []*Client
}

// Client talks to whoever runs in one place.
type Client struct {
	KV       registryv1.KVServiceClient
	Catalog  registryv1.CatalogServiceClient
	Watch    registryv1.WatchServiceClient
	Operator registryv1.OperatorServiceClient
	Lease    registryv1.LeaseServiceClient
	Lock     registryv1.LockServiceClient
	Conn     *grpc.ClientConn
}

// NewCluster lays out n servers below a folder without starting them.
func NewCluster(t testing.TB, n int, dir string) (*Cluster, error) {
	federation := uuid.NewString()
	ca := identitytest.NewCA(t, federation)
	c := &Cluster{gateway: ca.Source(datacenter, "gateway")}
	material := ca.Material(identity.ID{FederationID: federation, Datacenter: datacenter, Kind: identity.KindService, Service: registry.Name}, datacenter)
	papers, secret := filepath.Join(dir, "registry.json"), filepath.Join(dir, "token")
	if err := errors.Join(writePapers(papers, material), os.WriteFile(secret, []byte(token+"\n"), 0o600)); err != nil {
		return nil, err
	}
	var members []registry.Server
	for place := range n {
		s := &Server{Place: place, ID: fmt.Sprintf("s%d", place+1)}
		s.Dir = filepath.Join(dir, s.ID)
		var err error
		if s.host, err = newHost(place+1, s.Dir); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		s.spec = spec{ID: s.ID, Address: s.host.address, DataDir: filepath.Join(s.host.disk, "data"), Token: secret, Papers: papers}
		members = append(members, s.member())
		c.Servers = append(c.Servers, s)
		client, err := c.dial(s)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.clients = append(c.clients, client)
	}
	for _, s := range c.Servers {
		s.spec.Servers = members
	}
	return c, nil
}

func (c *Cluster) dial(s *Server) (*Client, error) {
	hasty := backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond}
	conn, err := rpc.Dial([]string{s.Address()}, rpc.ClientParams{
		Identity: c.gateway, Want: identity.Want{Datacenter: datacenter, Service: registry.Name}, Telemetry: obs.Discard(),
		Options: []grpc.DialOption{
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: hasty, MinConnectTimeout: 500 * time.Millisecond}),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		},
	})
	if err != nil {
		return nil, err
	}
	return &Client{
		KV: registryv1.NewKVServiceClient(conn), Catalog: registryv1.NewCatalogServiceClient(conn), Watch: registryv1.NewWatchServiceClient(conn),
		Operator: registryv1.NewOperatorServiceClient(conn), Lease: registryv1.NewLeaseServiceClient(conn), Lock: registryv1.NewLockServiceClient(conn), Conn: conn,
	}, nil
}

// Client talks to whoever runs in a place.
func (c *Cluster) Client(place int) *Client { return c.clients[place] }

// Authorize gives a context the right to do everything.
func Authorize(ctx context.Context) context.Context { return rpc.WithToken(ctx, token) }

// Start starts every server that does not run.
func (c *Cluster) Start() error {
	var errs []error
	for _, s := range c.Servers {
		if !s.Running() {
			errs = append(errs, s.Start())
		}
	}
	return errors.Join(errs...)
}

const askLimit = 500 * time.Millisecond

// Leader returns who leads as the majority sees it, nil if nobody says so.
func (c *Cluster) Leader(ctx context.Context) *Server {
	for place := range c.Servers {
		asked, cancel := context.WithTimeout(Authorize(ctx), askLimit)
		status, err := c.Client(place).Operator.ClusterStatus(asked, &registryv1.ClusterStatusRequest{})
		cancel()
		if err != nil {
			continue
		}
		for _, s := range c.Servers {
			if s.ID == status.GetLeader() && s.Running() {
				return s
			}
		}
	}
	return nil
}

// Settled waits until every server runs, has a vote and answers linearizable reads.
func (c *Cluster) Settled(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := c.settled(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the cluster did not settle: %w", err)
		case <-tick.C:
		}
	}
}

func (c *Cluster) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(Authorize(ctx), 2*time.Second)
	defer cancel()
	for place, s := range c.Servers {
		if !s.Running() {
			return fmt.Errorf("%s does not run: see %s", s.ID, filepath.Join(s.Dir, "log"))
		}
		if _, err := c.Client(place).KV.List(ctx, &registryv1.ListRequest{Limit: 1, ReadMode: registryv1.ReadMode_READ_MODE_LINEARIZABLE}); err != nil {
			return fmt.Errorf("%s: %w", s.ID, err)
		}
	}
	status, err := c.Client(0).Operator.ClusterStatus(ctx, &registryv1.ClusterStatusRequest{})
	if err != nil {
		return err
	}
	voters := map[string]bool{}
	for _, s := range status.GetServers() {
		voters[s.GetId()] = s.GetVoter()
	}
	for _, s := range c.Servers {
		if !voters[s.ID] {
			return fmt.Errorf("%s has no vote: %v", s.ID, voters)
		}
	}
	if len(voters) != len(c.Servers) {
		return fmt.Errorf("members are %v", voters)
	}
	return nil
}

// Close ends everything.
func (c *Cluster) Close() error {
	var errs []error
	for _, client := range c.clients {
		errs = append(errs, client.Conn.Close())
	}
	for _, s := range c.Servers {
		s.Kill()
		if s.host != nil {
			errs = append(errs, s.host.close())
		}
	}
	return errors.Join(errs...)
}
