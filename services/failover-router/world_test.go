package failoverrouter_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	failoverrouterv1 "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	failoverrouter "konsul.dev/services/failover-router"
)

const (
	east = "us-east"
	west = "us-west"
	eu   = "eu-central"

	patience = 10 * time.Second
)

// world is what surrounds a router in us-east: its registry, its gossip and a gateway that stands
// for every datacenter's, all over real mutual TLS, and instances that are real HTTP servers.
type world struct {
	registryv1.UnimplementedCatalogServiceServer
	wangossipv1.UnimplementedDatacenterServiceServer

	ca         *identitytest.CA
	backends   map[string]string // host:port of the instance a remote gateway chooses, by server name
	registry   string
	gossip     string
	stopGossip func()
	gateway    string

	mu        sync.Mutex
	instances map[string][]*registryv1.ServiceInstance // by datacenter
	policies  map[string]*registryv1.FailoverPolicy
	lost      map[string]bool
	states    map[string]wangossipv1.DatacenterState
	changed   chan struct{}
	peers     []identity.ID // who came to the gateways
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		ca: identitytest.NewCA(t, identitytest.FederationID), backends: map[string]string{},
		instances: map[string][]*registryv1.ServiceInstance{}, policies: map[string]*registryv1.FailoverPolicy{}, lost: map[string]bool{},
		states: map[string]wangossipv1.DatacenterState{}, changed: make(chan struct{}),
	}
	w.registry, _ = w.serve(t, "registry", func(s *rpc.Server) { registryv1.RegisterCatalogServiceServer(s, w) })
	w.gossip, w.stopGossip = w.serve(t, "wan-gossip", func(s *rpc.Server) { wangossipv1.RegisterDatacenterServiceServer(s, w) })
	w.gateway = w.serveGateway(t)
	return w
}

func (w *world) serve(t *testing.T, service string, register func(*rpc.Server)) (addr string, stop func()) {
	t.Helper()
	server, err := rpc.NewServer(rpc.ServerParams{Name: service, Identity: w.ca.Source(east, service), Telemetry: obs.Discard()})
	require.NoError(t, err)
	register(server)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String(), server.Stop
}

// serveGateway ends mutual TLS for whatever datacenter a server name names, as the gateway there
// would, and passes the bytes on to the backend.
func (w *world) serveGateway(t *testing.T) string {
	t.Helper()
	sources := map[string]identity.Source{west: w.ca.Source(west, "gateway"), eu: w.ca.Source(eu, "gateway")}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		sni, err := identity.ParseSNI(hello.ServerName)
		if err != nil {
			return nil, err
		}
		return sources[sni.Datacenter].ServerTLS(identity.ServerOptions{}), nil
	}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go w.pass(conn.(*tls.Conn))
		}
	}()
	return listener.Addr().String()
}

func (w *world) pass(conn *tls.Conn) {
	defer func() { _ = conn.Close() }()
	if conn.Handshake() != nil {
		return
	}
	peer, err := identity.PeerFromState(conn.ConnectionState())
	w.mu.Lock()
	w.peers = append(w.peers, peer)
	backend, known := w.backends[conn.ConnectionState().ServerName]
	w.mu.Unlock()
	if err != nil || !known {
		return
	}
	to, err := net.Dial("tcp", backend)
	if err != nil {
		return
	}
	defer func() { _ = to.Close() }()
	go func() { _, _ = io.Copy(to, conn) }()
	_, _ = io.Copy(conn, to)
}

func (w *world) QueryService(ctx context.Context, req *registryv1.QueryServiceRequest) (*registryv1.QueryServiceResponse, error) {
	w.mu.Lock()
	lost, instances := w.lost[req.GetDatacenter()], w.instances[req.GetDatacenter()]
	w.mu.Unlock()
	if lost {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	resp := &registryv1.QueryServiceResponse{Meta: &registryv1.QueryMeta{Datacenter: req.GetDatacenter()}}
	for _, i := range instances {
		if i.GetService().GetName() == req.GetService() {
			resp.Instances = append(resp.Instances, i)
		}
	}
	return resp, nil
}

func (w *world) GetFailoverPolicy(_ context.Context, req *registryv1.GetFailoverPolicyRequest) (*registryv1.GetFailoverPolicyResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if policy := w.policies[req.GetService()]; policy != nil {
		return &registryv1.GetFailoverPolicyResponse{Policy: policy}, nil
	}
	return nil, fault.New(fault.NotFound, "FAILOVER_POLICY_NOT_FOUND", "none")
}

func (w *world) WatchDatacenters(_ *wangossipv1.WatchDatacentersRequest, stream wangossipv1.DatacenterService_WatchDatacentersServer) error {
	for {
		w.mu.Lock()
		changed := w.changed
		message := &wangossipv1.WatchDatacentersResponse{Datacenter: east}
		for i, name := range []string{east, west, eu} {
			state := w.states[name]
			if state == wangossipv1.DatacenterState_DATACENTER_STATE_UNSPECIFIED {
				state = wangossipv1.DatacenterState_DATACENTER_STATE_ALIVE
			}
			message.Datacenters = append(message.Datacenters, &wangossipv1.Datacenter{
				Name: name, State: state, RoundTrip: durationpb.New(time.Duration(i) * 40 * time.Millisecond),
			})
		}
		w.mu.Unlock()
		if err := stream.Send(message); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return nil
		}
	}
}

// lose makes a datacenter unreachable for questions, and gossip notice it.
func (w *world) lose(dc string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost[dc], w.states[dc] = true, wangossipv1.DatacenterState_DATACENTER_STATE_FAILED
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) set(dc string, instances ...*registryv1.ServiceInstance) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.instances[dc] = instances
}

func instance(id, address string) *registryv1.ServiceInstance {
	host, port, _ := net.SplitHostPort(address)
	number, _ := strconv.ParseUint(port, 10, 16)
	return &registryv1.ServiceInstance{
		Node:    &registryv1.Node{Address: host},
		Service: &registryv1.Service{Id: id, Name: "api", Port: uint32(number)}, Status: registryv1.HealthStatus_HEALTH_STATUS_PASSING,
	}
}

// backend runs an HTTP server, and lets the remote gateway of a datacenter, if one is named, choose
// it.
func (w *world) backend(t *testing.T, dc string, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	address := server.Listener.Addr().String()
	if dc != "" {
		w.mu.Lock()
		w.backends[identity.WorkloadSNI("api", dc, identity.TrustDomain(identitytest.FederationID))] = address
		w.mu.Unlock()
	}
	return address
}

// nowhere returns an address at which nobody listens.
func nowhere(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	return listener.Addr().String()
}

func (w *world) config(t *testing.T) failoverrouter.Config {
	t.Helper()
	cfg := failoverrouter.DefaultConfig()
	cfg.Server.Datacenter, cfg.Server.DataDir = east, t.TempDir()
	cfg.Server.SecretFile = filepath.Join(cfg.Server.DataDir, "secret")
	require.NoError(t, os.WriteFile(cfg.Server.SecretFile, []byte(identity.NewSecret()), 0o600))
	cfg.Endpoints.Registry, cfg.Endpoints.WANGossip, cfg.Endpoints.Gateway = []string{w.registry}, []string{w.gossip}, []string{w.gateway}
	s := &cfg.FailoverRouter
	s.Listen, s.ProxyListen = "127.0.0.1:0", "127.0.0.1:0"
	s.RemoteTimeout, s.CacheTTL, s.ProxyCacheTTL = 400*time.Millisecond, 0, 0
	return cfg
}

type running struct {
	*failoverrouter.Service

	w         *world
	telemetry *obs.Telemetry
	client    failoverrouterv1.RouterServiceClient
	stop      func()
}

func (w *world) start(t *testing.T, change ...func(*failoverrouter.Config)) *running {
	t.Helper()
	cfg := w.config(t)
	for _, c := range change {
		c(&cfg)
	}
	r := &running{w: w, telemetry: obs.Discard()}
	var err error
	r.Service, err = failoverrouter.New(cfg, konsulfx.Process{
		Telemetry: r.telemetry, Clock: clock.System(), Identity: w.ca.Source(east, "failover-router"),
		Fail: func(err error) { t.Errorf("a loop failed: %v", err) },
	})
	require.NoError(t, err)
	require.NoError(t, r.Start(t.Context()))
	r.stop = sync.OnceFunc(func() { require.NoError(t, r.Stop(context.Background())) })
	t.Cleanup(r.stop)
	r.client = failoverrouterv1.NewRouterServiceClient(w.dial(t, r.Addr(), east, "agent"))
	require.Eventually(t, func() bool {
		resp, err := r.client.Resolve(t.Context(), &failoverrouterv1.ResolveRequest{Service: "api", AllDatacenters: true})
		return err == nil && len(resp.GetDatacenters()) == 3
	}, patience, 5*time.Millisecond, "gossip is heard")
	return r
}

func (w *world) dial(t *testing.T, addr, dc, service string) *grpc.ClientConn {
	t.Helper()
	conn, err := rpc.Dial([]string{addr}, rpc.ClientParams{
		Identity: w.ca.Source(dc, service), Want: identity.Want{Datacenter: east, Service: "failover-router"}, Telemetry: obs.Discard(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
