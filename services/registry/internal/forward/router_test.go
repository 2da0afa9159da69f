package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// world plays the cluster and the federation around one router.
type world struct {
	leader   string
	verified int
	calls    []string
	errs     []error // answered to calls, in turn
	block    bool
	md       metadata.MD
}

func (w *world) noLeader() error {
	return fault.New(fault.Unavailable, fault.ReasonNoLeader, "no leader")
}

func (w *world) CheckLease() error {
	if w.leader == "s1" {
		return nil
	}
	return w.noLeader()
}

func (w *world) VerifyLease(context.Context) error {
	w.verified++
	return w.CheckLease()
}
func (w *world) LeaderID() string   { return w.leader }
func (w *world) Datacenter() string { return "dc1" }
func (w *world) Primary() string    { return "dc0" }
func (w *world) Known() []string    { return []string{"dc0", "dc1", "dc2"} }

func (w *world) Server(id string) (grpc.ClientConnInterface, error) { return conn{w, id}, nil }

type connections struct{ *world }

func (c connections) Datacenter(name string) (grpc.ClientConnInterface, error) {
	return conn{c.world, name}, nil
}

type conn struct {
	w    *world
	name string
}

func (c conn) Invoke(ctx context.Context, _ string, _, _ any, _ ...grpc.CallOption) error {
	c.w.calls = append(c.w.calls, c.name)
	c.w.md, _ = metadata.FromOutgoingContext(ctx)
	if c.w.block {
		<-ctx.Done()
		c.w.block = false
		return fault.New(fault.Canceled, "", "canceled")
	}
	if len(c.w.errs) > 0 {
		err := c.w.errs[0]
		c.w.errs = c.w.errs[1:]
		return err
	}
	return nil
}

func (conn) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("not used")
}

func newRouter(t *testing.T, w *world) *Router {
	t.Helper()
	metrics, err := NewMetrics(prometheus.NewRegistry())
	require.NoError(t, err)
	ids := 0
	return New(Params{
		ServerID: "s1", Leadership: w, Directory: w, Connections: connections{w}, Metrics: metrics,
		Log: slog.New(slog.DiscardHandler), NewID: func() string { ids++; return fmt.Sprintf("id-%d", ids) },
		Routes: Routes{
			"/get":    {Kind: Read, Reply: To[registryv1.GetResponse]()},
			"/set":    {Kind: Write, Reply: To[registryv1.SetResponse](), Primary: func(req any) bool { return req.(*registryv1.SetRequest).GetScope() == registryv1.Scope_SCOPE_GLOBAL }},
			"/status": {Kind: Anywhere, Reply: To[registryv1.ClusterStatusResponse]()},
		},
	})
}

func (w *world) do(ctx context.Context, t *testing.T, r *Router, method string, req proto.Message) error {
	t.Helper()
	_, err := r.Unary(ctx, req, &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) {
		w.calls = append(w.calls, "here")
		if len(w.errs) > 0 {
			err := w.errs[0]
			w.errs = w.errs[1:]
			return nil, err
		}
		return nil, nil
	})
	return err
}

func TestCallsGoWhereTheyBelong(t *testing.T) {
	stale, linear := registryv1.ReadMode_READ_MODE_STALE, registryv1.ReadMode_READ_MODE_LINEARIZABLE
	from := func(key string) context.Context {
		return metadata.NewIncomingContext(context.Background(), metadata.Pairs(key, "x", "authorization", "Bearer secret"))
	}
	for name, c := range map[string]struct {
		leader string
		ctx    context.Context
		method string
		req    proto.Message
		want   []string
		reason string
	}{
		"default read on the leader":      {"s1", nil, "/get", &registryv1.GetRequest{}, []string{"here"}, ""},
		"default read on a follower":      {"s2", nil, "/get", &registryv1.GetRequest{}, []string{"s2"}, ""},
		"stale read on a follower":        {"s2", nil, "/get", &registryv1.GetRequest{ReadMode: stale}, []string{"here"}, ""},
		"stale read without a leader":     {"", nil, "/get", &registryv1.GetRequest{ReadMode: stale}, []string{"here"}, ""},
		"linearizable read":               {"s1", nil, "/get", &registryv1.GetRequest{ReadMode: linear}, []string{"here"}, ""},
		"own datacenter by name":          {"s1", nil, "/get", &registryv1.GetRequest{Datacenter: "dc1"}, []string{"here"}, ""},
		"own datacenter as local":         {"s1", nil, "/get", &registryv1.GetRequest{Datacenter: "local"}, []string{"here"}, ""},
		"other datacenter":                {"s1", nil, "/get", &registryv1.GetRequest{Datacenter: "dc2"}, []string{"dc2"}, ""},
		"stale read of other datacenter":  {"s1", nil, "/get", &registryv1.GetRequest{Datacenter: "dc2", ReadMode: stale}, []string{"dc2"}, ""},
		"unknown datacenter":              {"s1", nil, "/get", &registryv1.GetRequest{Datacenter: "dc9"}, nil, ReasonUnknownDatacenter},
		"global write":                    {"s1", nil, "/set", &registryv1.SetRequest{Scope: registryv1.Scope_SCOPE_GLOBAL, Datacenter: "dc2"}, []string{"dc0"}, ""},
		"local write on a follower":       {"s2", nil, "/set", &registryv1.SetRequest{}, []string{"s2"}, ""},
		"anywhere":                        {"s2", nil, "/status", &registryv1.ClusterStatusRequest{}, []string{"here"}, ""},
		"second hop between datacenters":  {"s1", from(hopDatacenter), "/get", &registryv1.GetRequest{Datacenter: "dc2"}, nil, ReasonForwardingLoop},
		"global write sent to no primary": {"s1", from(hopDatacenter), "/set", &registryv1.SetRequest{Scope: registryv1.Scope_SCOPE_GLOBAL}, nil, ReasonForwardingLoop},
		"from a datacenter to the leader": {"s2", from(hopDatacenter), "/get", &registryv1.GetRequest{}, []string{"s2"}, ""},
		"second hop to a leader":          {"s2", from(hopServer), "/get", &registryv1.GetRequest{}, nil, fault.ReasonNoLeader},
		"not routed":                      {"", nil, "/other", &registryv1.GetRequest{}, []string{"here"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{leader: c.leader}
			ctx := c.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			err := w.do(ctx, t, newRouter(t, w), c.method, c.req)
			require.Equal(t, c.reason, fault.ReasonOf(err))
			require.Equal(t, c.want, w.calls)
			if c.ctx != nil && len(w.md) > 0 {
				require.Equal(t, []string{"Bearer secret"}, w.md.Get("authorization"), "the token travels along")
				require.NotEmpty(t, w.md.Get(hopServer))
				require.NotEmpty(t, w.md.Get(hopDatacenter))
			}
		})
	}
}

func TestWritesGetAnIDAndAreRepeatedWhenThatIsSafe(t *testing.T) {
	bare := fault.New(fault.Unavailable, "", "connection refused")
	unknown := fault.New(fault.Unknown, fault.ReasonOutcomeUnknown, "who knows")
	w := &world{leader: "s2", errs: []error{bare, unknown, (&world{}).noLeader()}}
	req := &registryv1.SetRequest{}
	require.NoError(t, w.do(t.Context(), t, newRouter(t, w), "/set", req))
	require.Equal(t, []string{"s2", "s2", "s2", "s2"}, w.calls)
	require.Equal(t, "id-1", req.GetRequestId(), "one id for all tries")

	final := fault.New(fault.Aborted, "CAS_MISMATCH", "moved")
	w = &world{leader: "s2", errs: []error{final}}
	require.ErrorIs(t, w.do(t.Context(), t, newRouter(t, w), "/set", &registryv1.SetRequest{RequestId: "mine"}), final)
	require.Len(t, w.calls, 1)
}

func TestACallToAPausedLeaderIsCutLooseWhenAnotherLeads(t *testing.T) {
	w := &world{leader: "s2", block: true}
	r := newRouter(t, w)
	done := make(chan error)
	go func() { done <- w.do(t.Context(), t, r, "/set", &registryv1.SetRequest{}) }()
	for {
		r.flights.mu.Lock()
		flying := len(r.flights.byPeer["s2"])
		r.flights.mu.Unlock()
		if flying > 0 {
			break
		}
	}
	r.flights.strand("s3")
	require.NoError(t, <-done)
	require.Equal(t, []string{"s2", "s2"}, w.calls)
}

func TestAnUnreachableDatacenterIsNamed(t *testing.T) {
	bare := fault.New(fault.Unavailable, "", "connection refused")
	w := &world{leader: "s1", errs: []error{bare, bare, bare}}
	err := w.do(t.Context(), t, newRouter(t, w), "/get", &registryv1.GetRequest{Datacenter: "dc2"})
	f, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, ReasonDatacenterUnreachable, f.Reason())
	require.Equal(t, "dc2", f.Meta()["datacenter"])
	require.Positive(t, f.RetryAfter())

	own := fault.New(fault.NotFound, "KEY_NOT_FOUND", "nothing")
	w = &world{leader: "s1", errs: []error{own}}
	require.ErrorIs(t, w.do(t.Context(), t, newRouter(t, w), "/get", &registryv1.GetRequest{Datacenter: "dc2"}), own)
}

func TestRunStrandsCallsToTheOldLeader(t *testing.T) {
	w := &world{leader: "s2"}
	r := newRouter(t, w)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = r.Run(ctx)
	}()
	flight, end := r.flights.begin(t.Context(), "s9")
	defer end()
	select {
	case <-flight.Done():
	case <-time.After(10 * time.Second):
		t.Error("the call to s9 was left hanging")
	}
	cancel()
	<-ended
}
