package wangossip_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	wangossip "konsul.dev/services/wan-gossip"
)

const patience = 20 * time.Second

// world is a federation: its certificates and the gossip key its cas give out.
type world struct {
	ca *identitytest.CA

	mu  sync.Mutex
	key []byte
	// id is what the cas say the datacenter's id is; empty: they are of an earlier version.
	id string
}

func newWorld(t *testing.T, federationID string) *world {
	t.Helper()
	return &world{ca: identitytest.NewCA(t, federationID), key: bytes.Repeat([]byte{42}, 32)}
}

// fakeCA returns GetGossipKey.
type fakeCA struct {
	cav1.UnimplementedCertificateServiceServer
	w *world
}

func (f fakeCA) GetGossipKey(context.Context, *cav1.GetGossipKeyRequest) (*cav1.GetGossipKeyResponse, error) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	if f.w.key == nil {
		return &cav1.GetGossipKeyResponse{DatacenterId: f.w.id}, nil
	}
	return &cav1.GetGossipKeyResponse{Keys: [][]byte{f.w.key}, DatacenterId: f.w.id}, nil
}

// serveCA returns the address of a datacenter's ca, and how to stop it.
func (w *world) serveCA(t *testing.T, dc string) (addr string, stop func()) {
	t.Helper()
	server, err := rpc.NewServer(rpc.ServerParams{
		Name: "ca", Identity: w.ca.Source(dc, "ca"), Telemetry: obs.Discard(),
	})
	require.NoError(t, err)
	cav1.RegisterCertificateServiceServer(server, fakeCA{w: w})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String(), server.Stop
}

func (w *world) config(t *testing.T, dc string) wangossip.Config {
	t.Helper()
	cfg := wangossip.DefaultConfig()
	cfg.Server.Datacenter, cfg.Server.PrimaryDatacenter, cfg.Server.Node = dc, "us-east", "n1"
	cfg.Server.DataDir = t.TempDir()
	cfg.Server.SecretFile = filepath.Join(cfg.Server.DataDir, "secret")
	require.NoError(t, os.WriteFile(cfg.Server.SecretFile, []byte(identity.NewSecret()), 0o600))
	cfg.Server.WAN.BindAddr = "127.0.0.1:0"
	ca, _ := w.serveCA(t, dc)
	cfg.Endpoints.CA = []string{ca}
	cfg.WANGossip.Listen = "127.0.0.1:0"
	cfg.WANGossip.ProbeInterval = 50 * time.Millisecond
	cfg.WANGossip.RetryMin, cfg.WANGossip.RetryMax = 20*time.Millisecond, 200*time.Millisecond
	d := &cfg.WANGossip.Detection
	d.ProbeInterval, d.ProbeTimeout, d.GossipInterval = 250*time.Millisecond, 150*time.Millisecond, 20*time.Millisecond
	d.ReconnectInterval = 200 * time.Millisecond
	return cfg
}

// lines is a log that can be read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *lines) count(part string) int { return strings.Count(l.String(), part) }

func (l *lines) telemetry(t *testing.T) *obs.Telemetry {
	t.Helper()
	telemetry := obs.Discard()
	telemetry.Log = slog.New(slog.NewTextHandler(l, nil))
	return telemetry
}

type running struct {
	*wangossip.Service

	dc        string
	telemetry *obs.Telemetry
	stop      func()
	client    wangossipv1.DatacenterServiceClient
}

func (w *world) start(t *testing.T, cfg wangossip.Config) *running {
	t.Helper()
	return w.startWith(t, cfg, wangossip.Deps{Process: konsulfx.Process{Telemetry: obs.Discard()}})
}

func (w *world) startWith(t *testing.T, cfg wangossip.Config, deps wangossip.Deps) *running {
	t.Helper()
	r := &running{dc: cfg.Server.Datacenter, telemetry: deps.Telemetry}
	deps.Clock, deps.Identity = clock.System(), w.ca.Source(r.dc, "wan-gossip")
	deps.Fail = func(err error) { t.Errorf("a loop failed: %v", err) }
	var err error
	r.Service, err = wangossip.New(cfg, deps)
	require.NoError(t, err)
	require.NoError(t, r.Start(t.Context()))
	var once sync.Once
	r.stop = func() { once.Do(func() { require.NoError(t, r.Stop(context.Background())) }) }
	t.Cleanup(r.stop)
	r.client = wangossipv1.NewDatacenterServiceClient(w.dial(t, r.Addr(), r.dc, r.dc, "gateway"))
	return r
}

func (r *running) list(t *testing.T) map[string]*wangossipv1.Datacenter {
	t.Helper()
	resp, err := r.client.ListDatacenters(t.Context(), &wangossipv1.ListDatacentersRequest{})
	require.NoError(t, err)
	require.Equal(t, r.dc, resp.GetDatacenter())
	byName := map[string]*wangossipv1.Datacenter{}
	for _, dc := range resp.GetDatacenters() {
		byName[dc.GetName()] = dc
	}
	return byName
}

func (r *running) sees(t *testing.T, dc string, state wangossipv1.DatacenterState) {
	t.Helper()
	require.Eventually(t, func() bool { return r.list(t)[dc].GetState() == state }, patience, 20*time.Millisecond, "%s sees %s %s", r.dc, dc, state)
}

const (
	alive = wangossipv1.DatacenterState_DATACENTER_STATE_ALIVE
	left  = wangossipv1.DatacenterState_DATACENTER_STATE_LEFT
)

func TestDatacentersFindEachOtherAndAreServed(t *testing.T) {
	w := newWorld(t, identitytest.FederationID)
	east := w.start(t, w.config(t, "us-east"))
	westConfig := w.config(t, "us-west")
	westConfig.Server.WAN.Join = []string{"nowhere.invalid:8302", east.GossipAddr()}
	west := w.start(t, westConfig)
	require.NoError(t, east.Ready(t.Context()))
	for _, r := range []*running{east, west} {
		r.sees(t, "us-east", alive)
		r.sees(t, "us-west", alive)
		require.Eventually(t, func() bool {
			for _, dc := range r.list(t) {
				if dc.GetRoundTrip() == nil || (dc.GetName() == r.dc) != (dc.GetRoundTrip().AsDuration() == 0) {
					return false
				}
			}
			return true
		}, patience, 20*time.Millisecond, "round trips are measured; the own one is zero")
	}
	us := east.list(t)
	require.True(t, us["us-east"].GetPrimary())
	require.False(t, us["us-west"].GetPrimary())
	require.Equal(t, []string{"127.0.0.1:8443"}, us["us-west"].GetGatewayAddresses())
	require.NotEqual(t, us["us-east"].GetId(), us["us-west"].GetId())

	require.NoError(t, testutil.GatherAndCompare(east.telemetry.Metrics, bytes.NewBufferString(`
# HELP konsul_federation_connected_datacenters Datacenters that are alive in gossip, the own one included.
# TYPE konsul_federation_connected_datacenters gauge
konsul_federation_connected_datacenters 2
# HELP konsul_federation_wan_gossip_health Share of the known datacenters that are alive in gossip, those that have left not counted: 1 is well.
# TYPE konsul_federation_wan_gossip_health gauge
konsul_federation_wan_gossip_health 1
`), "konsul_federation_connected_datacenters", "konsul_federation_wan_gossip_health"))
	count, err := testutil.GatherAndCount(east.telemetry.Metrics, "konsul_wan_gossip_round_trip_seconds")
	require.NoError(t, err)
	require.Equal(t, 1, count)
	problems, err := testutil.GatherAndLint(east.telemetry.Metrics)
	require.NoError(t, err)
	require.Empty(t, problems)

	stream, err := east.client.WatchDatacenters(t.Context(), &wangossipv1.WatchDatacentersRequest{})
	require.NoError(t, err)
	first, err := stream.Recv()
	require.NoError(t, err)
	require.Len(t, first.GetDatacenters(), 2)
	west.stop()
	for {
		next, err := stream.Recv()
		require.NoError(t, err)
		if next.GetDatacenters()[1].GetState() == left {
			break
		}
	}
	east.stop()
	for err == nil {
		_, err = stream.Recv()
	}
	require.Equal(t, fault.Unavailable, fault.CodeOf(err), "a stop does not wait for watchers")
}

func TestRestartNeedsNeitherCaNorSeeds(t *testing.T) {
	w := newWorld(t, identitytest.FederationID)
	east := w.start(t, w.config(t, "us-east"))
	cfg := w.config(t, "us-west")
	ca, stopCA := w.serveCA(t, "us-west")
	cfg.Endpoints.CA = []string{ca}
	cfg.Server.WAN.Join = []string{east.GossipAddr()}
	west := w.start(t, cfg)
	west.sees(t, "us-east", alive)
	east.sees(t, "us-west", alive)
	id := west.list(t)["us-west"].GetId()
	west.stop()
	east.sees(t, "us-west", left)
	stopCA()

	cfg.Server.WAN.Join = nil
	west = w.start(t, cfg)
	west.sees(t, "us-east", alive)
	east.sees(t, "us-west", alive)
	require.Equal(t, id, west.list(t)["us-west"].GetId(), "the datacenter's id is immutable")
}

func TestWithAKeyOfItsOwnTheCATellsTheDatacentersID(t *testing.T) {
	w := newWorld(t, identitytest.FederationID)
	cfg := w.config(t, "us-east")
	secret, err := identity.ReadSecret(cfg.Server.SecretFile, "ca")
	require.NoError(t, err)
	id, err := identity.DatacenterID(secret, "us-east")
	require.NoError(t, err)
	holder := identity.Holder{Component: "wan-gossip"}
	key, err := identity.DeriveKey(secret, holder)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(cfg.Server.SecretFile, []byte(identity.FormatKey(holder, key)), 0o600))

	service, err := wangossip.New(cfg, wangossip.Deps{Process: konsulfx.Process{Telemetry: obs.Discard(), Clock: clock.System(), Identity: w.ca.Source("us-east", "wan-gossip")}})
	require.NoError(t, err)
	require.Equal(t, wangossip.ReasonNoDatacenterID, fault.ReasonOf(service.Start(t.Context())), "a ca of an earlier version does not know")

	w.mu.Lock()
	w.id = id
	w.mu.Unlock()
	running := w.start(t, cfg)
	kept, err := os.ReadFile(filepath.Join(cfg.Server.DataDir, wangossip.Name, "dcid"))
	require.NoError(t, err)
	require.Equal(t, id+"\n", string(kept), "the id that holders of the secret derive")
	running.stop()

	w.mu.Lock()
	w.id = "another"
	w.mu.Unlock()
	w.start(t, cfg)
	again, err := os.ReadFile(filepath.Join(cfg.Server.DataDir, wangossip.Name, "dcid"))
	require.NoError(t, err)
	require.Equal(t, kept, again, "it is asked for once")
}

func TestARefusedNewcomerSaysSo(t *testing.T) {
	w := newWorld(t, identitytest.FederationID)
	east := w.start(t, w.config(t, "us-east"))
	other := newWorld(t, "99999999-2222-4333-8444-555555555555")
	for name, c := range map[string]struct {
		w    *world
		dc   string
		says string
	}{
		"another federation":      {other, "us-west", "federation"},
		"a name that is taken":    {w, "us-east", `called "us-east"`},
		"another federation's ca": {&world{ca: w.ca, key: bytes.Repeat([]byte{1}, 32)}, "us-west", "another key"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := c.w.config(t, c.dc)
			cfg.Server.Node = "n2"
			cfg.Server.WAN.Join = []string{east.GossipAddr()}
			newcomer := c.w.start(t, cfg)
			require.Eventually(t, func() bool { return newcomer.Ready(t.Context()) != nil }, patience, 10*time.Millisecond)
			require.ErrorContains(t, newcomer.Ready(t.Context()), c.says)
			require.Equal(t, wangossip.ReasonRefused, fault.ReasonOf(newcomer.Ready(t.Context())))
			families, err := newcomer.telemetry.Metrics.Gather()
			require.NoError(t, err)
			refused := 0.0
			for _, f := range families {
				if f.GetName() == "konsul_wan_gossip_merges_refused_total" {
					for _, m := range f.GetMetric() {
						refused += m.GetCounter().GetValue()
					}
				}
			}
			require.Positive(t, refused)
			require.Len(t, east.list(t), 1)
			require.NoError(t, east.Ready(t.Context()), "the pool is none the worse for it")
		})
	}
}

func TestOwnNamesMayAppearLate(t *testing.T) {
	w := newWorld(t, identitytest.FederationID)
	east := w.start(t, w.config(t, "us-east"))
	cfg := w.config(t, "us-west")
	cfg.Server.WAN.AdvertiseAddr = "konsul-us-west.example.com:8302"
	cfg.Server.WAN.Join = []string{east.GossipAddr()}
	var log lines
	var known atomic.Bool
	var tries atomic.Int32
	west := w.startWith(t, cfg, wangossip.Deps{
		Process: konsulfx.Process{Telemetry: log.telemetry(t)},
		Lookup: func(_ context.Context, host string) ([]string, error) {
			if host != "konsul-us-west.example.com" {
				return []string{host}, nil
			}
			if tries.Add(1); !known.Load() {
				return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
			}
			return []string{"::1", "127.9.9.9"}, nil
		},
	})
	require.Equal(t, alive, west.list(t)["us-west"].GetState(), "the own datacenter is served meanwhile")
	require.NoError(t, west.Ready(t.Context()))
	require.Empty(t, west.GossipAddr())
	require.Eventually(t, func() bool { return tries.Load() > 3 }, patience, 10*time.Millisecond, "it is asked for again")
	require.Equal(t, 1, log.count("level=WARN"), log.String())

	known.Store(true)
	require.Eventually(t, func() bool { return strings.HasPrefix(west.GossipAddr(), "127.9.9.9:") }, patience, 10*time.Millisecond)
	require.Eventually(t, func() bool { return len(west.list(t)) == 2 }, patience, 10*time.Millisecond, "and then it joins")
}

func TestAGossipKeyMayComeLate(t *testing.T) {
	w := newWorld(t, identitytest.FederationID)
	cfg := w.config(t, "us-east")
	ca, stop := w.serveCA(t, "us-east")
	stop()
	cfg.Endpoints.CA = []string{ca, cfg.Endpoints.CA[0]}
	key := w.key
	w.mu.Lock()
	w.key = nil
	w.mu.Unlock()
	east := w.start(t, cfg)
	require.Equal(t, alive, east.list(t)["us-east"].GetState())
	require.Empty(t, east.GossipAddr())
	w.mu.Lock()
	w.key = key
	w.mu.Unlock()
	require.Eventually(t, func() bool { return east.GossipAddr() != "" }, patience, 10*time.Millisecond)
}

func TestAStopDoesNotWaitForANameThatNeverComes(t *testing.T) {
	w := newWorld(t, identitytest.FederationID)
	cfg := w.config(t, "us-east")
	cfg.Server.WAN.AdvertiseAddr = "nosuch.invalid:8302"
	east := w.startWith(t, cfg, wangossip.Deps{
		Process: konsulfx.Process{Telemetry: obs.Discard()},
		Lookup: func(_ context.Context, host string) ([]string, error) {
			if host == "nosuch.invalid" {
				return nil, &net.DNSError{Err: "no such host", Name: host}
			}
			return []string{host}, nil
		},
	})
	east.stop()
}

func TestWithoutGossipTheOwnDatacenterIsListed(t *testing.T) {
	w := newWorld(t, identitytest.FederationID)
	cfg := w.config(t, "us-east")
	cfg.Server.WAN.Enabled = false
	r := w.start(t, cfg)
	require.Equal(t, alive, r.list(t)["us-east"].GetState())
	require.NoError(t, r.Ready(t.Context()))
}

func TestOnlyTheOwnDatacenterMayAsk(t *testing.T) {
	w := newWorld(t, identitytest.FederationID)
	r := w.start(t, w.config(t, "us-east"))
	stranger := wangossipv1.NewDatacenterServiceClient(w.dial(t, r.Addr(), r.dc, "us-west", "gateway"))
	_, err := stranger.ListDatacenters(t.Context(), &wangossipv1.ListDatacentersRequest{})
	require.Equal(t, fault.PermissionDenied, fault.CodeOf(err))
}
