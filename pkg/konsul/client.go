package konsul

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	failoverrouterv1 "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"
)

// A gateway that neither answers nor closes is noticed after keepaliveTime plus keepaliveTimeout.
const (
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 5 * time.Second
	connectTimeout   = 3 * time.Second
	// maxAnswer holds a full page of a list.
	maxAnswer = 64 << 20
)

// Client is a connection to a federation. Make one with New.
type Client struct {
	// Service discovers and registers services.
	Service *ServiceClient
	// Nodes registers machines with what runs on them, and says that they live.
	Nodes *NodesClient
	// KV reads and writes keys.
	KV *KVClient
	// Watch follows keys and services.
	Watch *WatchClient
	// Leases keeps promises to be there.
	Leases *LeaseClient
	// Locks takes locks.
	Locks *LockClient
	// Datacenters lists the federation's datacenters.
	Datacenters *DatacentersClient
	// Cluster asks how the registry's servers are.
	Cluster *ClusterClient
	// CA makes join tokens.
	CA *CAClient

	conn *grpc.ClientConn
	api  API
}

// API holds the generated clients of the contracts behind the gateway, for what the rest of the
// package does not cover. Calls get the client's token, timeout, request ids, retries and faults.
type API struct {
	Catalog     registryv1.CatalogServiceClient
	KV          registryv1.KVServiceClient
	Watch       registryv1.WatchServiceClient
	Leases      registryv1.LeaseServiceClient
	Locks       registryv1.LockServiceClient
	Operator    registryv1.OperatorServiceClient
	Router      failoverrouterv1.RouterServiceClient
	Datacenters wangossipv1.DatacenterServiceClient
	Federation  federationv1.FederationServiceClient
	CA          cav1.CertificateServiceClient
	ACL         registryv1.ACLServiceClient
	Backup      registryv1.BackupServiceClient
}

// New makes a client. It does not connect: the first call does. Close releases it. Errors are
// InvalidArgument faults that name the field of Config.
func New(cfg Config) (*Client, error) {
	ready, err := cfg.resolve(names{addresses: "Addresses", token: "Token", caFile: "CAFile"})
	if err != nil {
		return nil, err
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, DefaultTimeout)
	conn, err := dial(cfg, ready)
	if err != nil {
		return nil, fmt.Errorf("make client for %s: %w", strings.Join(cfg.Addresses, ", "), err)
	}
	return newClient(cfg, conn, newTransport(conn, cfg)), nil
}

// newClient puts the faces on a transport.
func newClient(cfg Config, conn *grpc.ClientConn, t transport) *Client {
	c := &Client{conn: conn, api: API{
		Catalog:     registryv1.NewCatalogServiceClient(t),
		KV:          registryv1.NewKVServiceClient(t),
		Watch:       registryv1.NewWatchServiceClient(t),
		Leases:      registryv1.NewLeaseServiceClient(t),
		Locks:       registryv1.NewLockServiceClient(t),
		Operator:    registryv1.NewOperatorServiceClient(t),
		Router:      failoverrouterv1.NewRouterServiceClient(t),
		Datacenters: wangossipv1.NewDatacenterServiceClient(t),
		Federation:  federationv1.NewFederationServiceClient(t),
		CA:          cav1.NewCertificateServiceClient(t),
		ACL:         registryv1.NewACLServiceClient(t),
		Backup:      registryv1.NewBackupServiceClient(t),
	}}
	c.Service = &ServiceClient{api: c.api, cfg: cfg}
	c.Nodes = &NodesClient{api: c.api.Catalog, cfg: cfg}
	c.Watch = &WatchClient{api: c.api.Watch, cfg: cfg}
	c.KV = &KVClient{api: c.api.KV, cfg: cfg}
	c.Leases = &LeaseClient{api: c.api.Leases, cfg: cfg}
	c.Locks = &LockClient{api: c.api.Locks, leases: c.Leases, cfg: cfg}
	c.Datacenters = &DatacentersClient{api: c.api.Datacenters}
	c.Cluster = &ClusterClient{api: c.api.Operator, cfg: cfg}
	c.CA = &CAClient{api: c.api.CA}
	return c
}

// API returns the generated clients. Config.Datacenter does not apply to them.
func (c *Client) API() API { return c.api }

// Close ends the connection; calls in flight fail.
func (c *Client) Close() error {
	if err := c.conn.Close(); err != nil {
		return fmt.Errorf("close client: %w", err)
	}
	return nil
}

// dial makes a lazy connection that prefers the gateways in their order.
func dial(cfg Config, ready resolved) (*grpc.ClientConn, error) {
	endpoints := make([]resolver.Endpoint, len(ready.gateways))
	for i, g := range ready.gateways {
		endpoints[i] = resolver.Endpoint{Addresses: []resolver.Address{{Addr: g.addr, ServerName: g.host}}}
	}
	static := manual.NewBuilderWithScheme("konsul-gateways")
	static.InitialState(resolver.State{Endpoints: endpoints})
	reconnect := grpcbackoff.DefaultConfig
	reconnect.BaseDelay, reconnect.MaxDelay = 100*time.Millisecond, 3*time.Second
	options := append([]grpc.DialOption{
		grpc.WithResolvers(static),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: ready.roots, MinVersion: tls.VersionTLS13})),
		grpc.WithPerRPCCredentials(bearer(cfg.Token)),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"pick_first":{}}]}`),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: connectTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithUserAgent("konsul-go"),
	}, cfg.DialOptions...)
	return grpc.NewClient(static.Scheme()+":///gateway", options...)
}

// bearer is a token that goes with every call, over TLS only.
type bearer string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (bearer) RequireTransportSecurity() bool { return true }
