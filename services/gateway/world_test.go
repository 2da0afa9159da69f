package gateway_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	failoverrouterv1 "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	"konsul.dev/services/gateway"
)

const (
	east     = "us-east"
	west     = "us-west"
	patience = 10 * time.Second

	token       = "a-management-token"
	plainToken  = "a-plain-token"
	trustDomain = identitytest.FederationID + ".konsul"
)

// datacenter is everything of a datacenter that a gateway talks to, on one real server per
// identity.
type datacenter struct {
	registryv1.UnimplementedKVServiceServer
	registryv1.UnimplementedCatalogServiceServer
	registryv1.UnimplementedTokenServiceServer
	registryv1.UnimplementedOperatorServiceServer
	registryv1.UnimplementedACLServiceServer
	registryv1.UnimplementedBackupServiceServer
	federationv1.UnimplementedFederationServiceServer
	wangossipv1.UnimplementedDatacenterServiceServer
	failoverrouterv1.UnimplementedRouterServiceServer
	cav1.UnimplementedCertificateServiceServer

	// health is the registry's.
	health *health.Server

	name                            string
	registry, gossip, router, caSrv string

	mu           sync.Mutex
	values       map[string]*registryv1.Entry
	instances    []*registryv1.ServiceInstance
	others       map[string][]string // datacenter name to gateways, as gossip says
	members      map[string][]string // the same, as the federation record says
	introspected int
	authorized   []*registryv1.AuthorizeTokenRequest
	// anonymous says that requests without a token have something.
	anonymous bool
	// expires is when the plain token does.
	expires  *timestamppb.Timestamp
	down     error
	callers  []identity.ID
	metadata metadata.MD
	changed  chan struct{}
	// backup is the file a backup answers, and cut after how many of its bytes the registry is
	// gone; 0: it stays.
	backup []byte
	cut    int
	// restored is the files that came in, and with which orders.
	restored [][]byte
	started  []*registryv1.RestoreStart
	bases    []*registryv1.CreateBackupRequest
	// asked is what the catalogue was, but for health queries.
	asked []proto.Message
}

func newDatacenter(t *testing.T, ca *identitytest.CA, name string) *datacenter {
	t.Helper()
	d := &datacenter{name: name, values: map[string]*registryv1.Entry{}, others: map[string][]string{}, changed: make(chan struct{})}
	d.registry = d.serve(t, ca.Source(name, "registry"), func(s *rpc.Server) {
		d.health = s.Health
		registryv1.RegisterKVServiceServer(s, d)
		registryv1.RegisterCatalogServiceServer(s, d)
		registryv1.RegisterTokenServiceServer(s, d)
		registryv1.RegisterOperatorServiceServer(s, d)
		registryv1.RegisterACLServiceServer(s, d)
		registryv1.RegisterBackupServiceServer(s, d)
		federationv1.RegisterFederationServiceServer(s, d)
	})
	d.gossip = d.serve(t, ca.Source(name, "wan-gossip"), func(s *rpc.Server) { wangossipv1.RegisterDatacenterServiceServer(s, d) })
	d.router = d.serve(t, ca.Source(name, "failover-router"), func(s *rpc.Server) { failoverrouterv1.RegisterRouterServiceServer(s, d) })
	d.caSrv = d.serve(t, ca.Source(name, "ca"), func(s *rpc.Server) { cav1.RegisterCertificateServiceServer(s, d) })
	return d
}

func (d *datacenter) serve(t *testing.T, source identity.Source, register func(*rpc.Server)) string {
	t.Helper()
	anyone := rpc.Rule{Peers: []rpc.Peer{{Service: "*", AnyDC: true}}}
	carried := rpc.Rule{TokenPeers: []rpc.Peer{{Service: "gateway"}}, Peers: []rpc.Peer{{Service: "registry", AnyDC: true}}}
	server, err := rpc.NewServer(rpc.ServerParams{
		Name: "fake", Identity: source, Telemetry: obs.Discard(), Tokens: d, MaxMessageBytes: 8 << 20,
		Access: rpc.Access{
			"konsul.registry.v1.KVService":            carried,
			"konsul.registry.v1.OperatorService":      carried,
			"konsul.registry.v1.ACLService":           anyone,
			"konsul.registry.v1.BackupService":        carried,
			"konsul.registry.v1.CatalogService":       anyone,
			"konsul.registry.v1.TokenService":         anyone,
			"konsul.federation.v1.FederationService":  anyone,
			"konsul.wangossip.v1.DatacenterService":   anyone,
			"konsul.failoverrouter.v1.RouterService":  anyone,
			"konsul.ca.v1.CertificateService":         anyone,
			"konsul.federation.v1.ReplicationService": anyone,
		},
	})
	require.NoError(t, err)
	register(server)
	port, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server.Serving()
	go func() { _ = server.Serve(port) }()
	t.Cleanup(server.Stop)
	return port.Addr().String()
}

// CheckToken is what the registry does for itself.
func (d *datacenter) CheckToken(_ context.Context, secret string) (string, any, error) {
	switch secret {
	case token, plainToken:
		return "alice", nil, nil
	case rpc.AnonymousToken:
		if d.anonymous {
			return "nobody", nil, nil
		}
		return "", nil, fault.New(fault.Unauthenticated, rpc.ReasonTokenRequired, "the request carries no token")
	}
	return "", nil, fault.New(fault.Unauthenticated, "TOKEN_UNKNOWN", "the token is unknown")
}

func (d *datacenter) IntrospectToken(_ context.Context, req *registryv1.IntrospectTokenRequest) (*registryv1.IntrospectTokenResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.introspected++
	if d.down != nil {
		return nil, d.down
	}
	accessor, _, err := d.CheckToken(context.Background(), req.GetSecret())
	resp := &registryv1.IntrospectTokenResponse{AccessorId: accessor, Management: req.GetSecret() == token}
	if req.GetSecret() == plainToken {
		resp.ExpiresAt = d.expires
	}
	return resp, err
}

// AuthorizeToken knows one token that may do everything, and one that may read what belongs to
// services named "free".
func (d *datacenter) AuthorizeToken(_ context.Context, req *registryv1.AuthorizeTokenRequest) (*registryv1.AuthorizeTokenResponse, error) {
	d.mu.Lock()
	d.authorized = append(d.authorized, req)
	d.mu.Unlock()
	for _, n := range req.GetNeeds() {
		if req.GetSecret() != token && (n.GetResource() != "service" || n.GetName() != "free") {
			return nil, fault.New(fault.PermissionDenied, "PERMISSION_DENIED", "lacks %s:%s on %s", n.GetResource(), n.GetAccess(), n.GetName())
		}
	}
	return &registryv1.AuthorizeTokenResponse{AccessorId: "alice"}, nil
}

// Bootstrap returns whoever asks.
func (d *datacenter) Bootstrap(ctx context.Context, _ *registryv1.BootstrapRequest) (*registryv1.BootstrapResponse, error) {
	d.heard(ctx)
	return &registryv1.BootstrapResponse{Secret: "first"}, nil
}

// heard keeps what a KV call came with; nothing but the tests makes those.
func (d *datacenter) heard(ctx context.Context) {
	id, _ := rpc.PeerID(ctx)
	incoming, _ := metadata.FromIncomingContext(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.callers = append(d.callers, id)
	d.metadata = incoming
}

func (d *datacenter) Get(ctx context.Context, req *registryv1.GetRequest) (*registryv1.GetResponse, error) {
	d.heard(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	entry, ok := d.values[req.GetKey()]
	if !ok {
		return nil, fault.New(fault.NotFound, "KEY_NOT_FOUND", "no such key").WithField("key").WithRemedy("set it").WithMeta("index", "7")
	}
	return &registryv1.GetResponse{Entry: entry, Meta: d.meta()}, nil
}

func (d *datacenter) meta() *registryv1.QueryMeta {
	return &registryv1.QueryMeta{Datacenter: d.name, Index: 42, KnownLeader: true, LastContactMs: 3}
}

func (d *datacenter) Set(ctx context.Context, req *registryv1.SetRequest) (*registryv1.SetResponse, error) {
	d.heard(ctx)
	if req.Cas != nil {
		return nil, fault.New(fault.Aborted, "CAS_MISMATCH", "the key moved on").WithField("cas")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	entry := &registryv1.Entry{Key: req.GetKey(), Value: req.GetValue(), Flags: req.GetFlags()}
	d.values[req.GetKey()] = entry
	return &registryv1.SetResponse{Entry: entry, Meta: &registryv1.WriteMeta{Datacenter: d.name, Index: 43}}, nil
}

func (d *datacenter) Delete(_ context.Context, req *registryv1.DeleteRequest) (*registryv1.DeleteResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	resp := &registryv1.DeleteResponse{Meta: &registryv1.WriteMeta{Datacenter: d.name, Index: 44}}
	for key := range d.values {
		if key == req.GetKey() || req.GetRecurse() && strings.HasPrefix(key, req.GetKey()) {
			delete(d.values, key)
			resp.Deleted++
		}
	}
	return resp, nil
}

func (d *datacenter) QueryService(context.Context, *registryv1.QueryServiceRequest) (*registryv1.QueryServiceResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &registryv1.QueryServiceResponse{Instances: d.instances, Meta: d.meta()}, nil
}

func (d *datacenter) ClusterStatus(context.Context, *registryv1.ClusterStatusRequest) (*registryv1.ClusterStatusResponse, error) {
	return nil, fault.New(fault.Unavailable, fault.ReasonNoLeader, "no leader").WithRetryAfter(1500 * time.Millisecond)
}

func (d *datacenter) GetFederation(context.Context, *federationv1.GetFederationRequest) (*federationv1.GetFederationResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down != nil {
		return nil, d.down
	}
	record := &federationv1.Federation{Id: identitytest.FederationID, Datacenter: d.name}
	for name, gateways := range d.members {
		record.Members = append(record.Members, &federationv1.Datacenter{Name: name, GatewayAddresses: gateways})
	}
	return &federationv1.GetFederationResponse{Federation: record}, nil
}

func (d *datacenter) list() []*wangossipv1.Datacenter {
	out := []*wangossipv1.Datacenter{{Name: d.name, RoundTrip: durationpb.New(0)}}
	for name, gateways := range d.others {
		out = append(out, &wangossipv1.Datacenter{Name: name, GatewayAddresses: gateways})
	}
	return out
}

func (d *datacenter) WatchDatacenters(_ *wangossipv1.WatchDatacentersRequest, stream wangossipv1.DatacenterService_WatchDatacentersServer) error {
	if err := stream.SetHeader(metadata.Pairs("x-answer", "header")); err != nil {
		return err
	}
	stream.SetTrailer(metadata.Pairs("x-end", "trailer"))
	for {
		d.mu.Lock()
		list, changed := d.list(), d.changed
		d.mu.Unlock()
		if err := stream.Send(&wangossipv1.WatchDatacentersResponse{Datacenter: d.name, Datacenters: list}); err != nil {
			return err
		}
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case _, more := <-changed:
			if !more {
				return fault.New(fault.Unavailable, "STOPPING", "the end")
			}
		}
	}
}

// learns makes gossip tell of another datacenter.
func (d *datacenter) learns(name string, gateways ...string) {
	d.mu.Lock()
	d.others[name] = gateways
	changed := d.changed
	d.mu.Unlock()
	for range 8 { // every watcher there may be
		select {
		case changed <- struct{}{}:
		case <-time.After(20 * time.Millisecond):
			return
		}
	}
}

func (d *datacenter) Resolve(_ context.Context, req *failoverrouterv1.ResolveRequest) (*failoverrouterv1.ResolveResponse, error) {
	return &failoverrouterv1.ResolveResponse{FailedOver: req.GetPreferLocal()}, nil
}

func (d *datacenter) CreateJoinToken(context.Context, *cav1.CreateJoinTokenRequest) (*cav1.CreateJoinTokenResponse, error) {
	return &cav1.CreateJoinTokenResponse{Token: "secret", Id: "id"}, nil
}

func (d *datacenter) GetTrustBundle(context.Context, *cav1.GetTrustBundleRequest) (*cav1.GetTrustBundleResponse, error) {
	return &cav1.GetTrustBundleResponse{FederationId: identitytest.FederationID}, nil
}

// running is a started gateway with what a test looks at.
type running struct {
	*gateway.Service
	mesh, edge string
	telemetry  *obs.Telemetry
	roots      *x509.CertPool
}

func start(t *testing.T, ca *identitytest.CA, d *datacenter, change ...func(*gateway.Config)) *running {
	t.Helper()
	r := &running{telemetry: obs.Discard(), roots: x509.NewCertPool()}
	return r.start(t, ca, d, change...)
}

func (r *running) start(t *testing.T, ca *identitytest.CA, d *datacenter, change ...func(*gateway.Config)) *running {
	t.Helper()
	cfg := gateway.DefaultConfig()
	cfg.Server.Datacenter, cfg.Server.PrimaryDatacenter = d.name, east
	cfg.Server.DataDir, cfg.Server.SecretFile = t.TempDir(), "unused"
	cfg.Endpoints.Registry, cfg.Endpoints.CA = []string{d.registry}, []string{d.caSrv}
	cfg.Endpoints.WANGossip, cfg.Endpoints.FailoverRouter = []string{d.gossip}, []string{d.router}
	cfg.Gateway.Listen, cfg.Gateway.HTTPListen = "127.0.0.1:0", "127.0.0.1:0"
	cfg.Gateway.DrainTimeout = 200 * time.Millisecond
	for _, c := range change {
		c(&cfg)
	}
	var err error
	r.Service, err = gateway.New(cfg, gateway.Deps{
		Process: konsulfx.Process{
			Telemetry: r.telemetry, Clock: clock.System(), Identity: ca.Source(d.name, "gateway"),
			Fail: func(err error) { t.Errorf("a loop failed: %v", err) },
		},
		Metrics: promhttp.HandlerFor(r.telemetry.Metrics, promhttp.HandlerOpts{}),
	})
	require.NoError(t, err)
	require.NoError(t, r.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, r.Stop(context.Background())) })
	r.mesh, r.edge = r.Addrs()
	r.roots.AddCert(ca.Root())
	return r
}

// metric returns the sum of a metric's values over the series that carry all of these labels.
func (r *running) metric(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	families, err := r.telemetry.Metrics.Gather()
	require.NoError(t, err)
	total := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var pairs []string
			for _, l := range m.GetLabel() {
				pairs = append(pairs, l.GetName()+"="+l.GetValue())
			}
			if subset(labels, pairs) {
				total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return total
}

func subset(want, have []string) bool {
	for _, w := range want {
		found := false
		for _, h := range have {
			found = found || h == w
		}
		if !found {
			return false
		}
	}
	return true
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, patience, 10*time.Millisecond, what)
}

// viaMesh dials a server name through the mesh port.
func (r *running) viaMesh(t *testing.T, config *tls.Config) (*tls.Conn, error) {
	t.Helper()
	raw, err := net.DialTimeout("tcp", r.mesh, patience)
	require.NoError(t, err)
	t.Cleanup(func() { _ = raw.Close() })
	require.NoError(t, raw.SetDeadline(time.Now().Add(patience)))
	conn := tls.Client(raw, config)
	return conn, conn.HandshakeContext(t.Context())
}

func (r *running) components(t *testing.T, source identity.Source, dc string) *grpc.ClientConn {
	t.Helper()
	conn, err := rpc.DialDatacenter([]string{r.mesh}, dc, "registry", rpc.ClientParams{Identity: source, Telemetry: obs.Discard()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
