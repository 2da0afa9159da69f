package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/fsm"
)

// world plays the cluster and the federation around one router.
type world struct {
	leader   string
	verified int
	calls    []string
	errs     []error // answered to calls, in turn
	block    bool
	// reached says for each call, in turn, whether it had a connection to go out on.
	reached []bool
	md      metadata.MD
	// published is how far this server is, confirmed what the leader answers.
	published, confirmed uint64
	// term is what this server knows, leaderTerms what the leader says it is at, in turn.
	term        uint64
	leaderTerms []uint64
	// lease is what the leader gives to who asks for one.
	lease    *registryv1.ReadLease
	proposed []int
}

func (w *world) ProposeAll(_ context.Context, proposals []fsm.Proposal) []fsm.Outcome {
	w.calls = append(w.calls, "here")
	w.proposed = append(w.proposed, len(proposals))
	out := make([]fsm.Outcome, len(proposals))
	for i := range out {
		out[i].Result = &registryv1.CommandResult{Index: uint64(i)} //nolint:gosec // a small number
	}
	return out
}

func (w *world) noLeader() error {
	return fault.New(fault.Unavailable, fault.ReasonNoLeader, "no leader")
}

func (w *world) CheckLeader() error {
	if w.leader == "s1" {
		return nil
	}
	return w.noLeader()
}

func (w *world) EnsureLease(context.Context) error { return w.CheckLeader() }

func (w *world) VerifyLeader(context.Context) error {
	w.verified++
	return w.CheckLeader()
}
func (w *world) LeaderID() string   { return w.leader }
func (w *world) Term() uint64       { return w.term }
func (w *world) Datacenter() string { return "dc1" }

func (w *world) LineageOf(string) string { return "" }

func (w *world) CheckLineage(string) error { return nil }
func (w *world) Primary() string           { return "dc0" }
func (w *world) Known() []string           { return []string{"dc0", "dc1", "dc2"} }

func (w *world) Server(id string) (grpc.ClientConnInterface, error) { return conn{w, id}, nil }

type connections struct{ *world }

func (c connections) Datacenter(name string) (grpc.ClientConnInterface, error) {
	return conn{c.world, name}, nil
}

type conn struct {
	w    *world
	name string
}

func (c conn) Invoke(ctx context.Context, _ string, req, reply any, opts ...grpc.CallOption) error {
	c.w.reach(opts)
	if asked, ok := req.(*registryv1.ReadIndexRequest); ok {
		c.w.calls = append(c.w.calls, "ask "+c.name)
		resp := reply.(*registryv1.ReadIndexResponse)
		resp.Index = c.w.confirmed
		if asked.GetLease() {
			resp.Lease = c.w.lease
		}
		if len(c.w.leaderTerms) > 0 {
			resp.Term, c.w.leaderTerms = c.w.leaderTerms[0], c.w.leaderTerms[1:]
		}
		return c.w.nextError()
	}
	c.w.calls = append(c.w.calls, c.name)
	c.w.md, _ = metadata.FromOutgoingContext(ctx)
	if c.w.block {
		<-ctx.Done()
		c.w.block = false
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fault.New(fault.DeadlineExceeded, "", "too late")
		}
		return fault.New(fault.Canceled, "", "canceled")
	}
	if resp, ok := reply.(*registryv1.ProposeResponse); ok && len(c.w.errs) == 0 {
		for i := range req.(*registryv1.ProposeRequest).GetProposals() {
			resp.Outcomes = append(resp.Outcomes, &registryv1.ProposalOutcome{Outcome: &registryv1.ProposalOutcome_Result{
				Result: &registryv1.CommandResult{Index: uint64(i)}, //nolint:gosec // a small number
			}})
		}
	}
	return c.w.nextError()
}

func (w *world) reach(opts []grpc.CallOption) {
	if len(w.reached) == 0 {
		return
	}
	for _, opt := range opts {
		if p, ok := opt.(grpc.PeerCallOption); ok && w.reached[0] {
			p.PeerAddr.Addr = &net.TCPAddr{}
		}
	}
	w.reached = w.reached[1:]
}

func (w *world) nextError() error {
	if len(w.errs) == 0 {
		return nil
	}
	err := w.errs[0]
	w.errs = w.errs[1:]
	return err
}

func (c conn) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, fault.New(fault.Unimplemented, "", "no streams here")
}

func newRouter(t *testing.T, w *world) *Router {
	t.Helper()
	metrics := NewMetrics(prometheus.NewRegistry())
	ids := 0
	return New(Params{
		ServerID: "s1", Leadership: w, Directory: w, Connections: connections{w}, Metrics: metrics,
		Admit:     func(uint32) error { return nil },
		Published: func() uint64 { return w.published }, MaxInFlight: 4,
		Log: slog.New(slog.DiscardHandler), NewID: func() string { ids++; return fmt.Sprintf("id-%d", ids) },
		Routes: Routes{
			"/get": {Kind: Read, Reply: to[registryv1.GetResponse]()},
			"/set": {Kind: Write, Reply: to[registryv1.SetResponse](), Primary: func(_ context.Context, req proto.Message) bool {
				return req.(*registryv1.SetRequest).GetScope() == registryv1.Scope_SCOPE_GLOBAL
			}},
			"/propose": {Kind: Proposal},
			"/status":  {Kind: Anywhere, Reply: to[registryv1.ClusterStatusResponse]()},
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

// calledBy returns the context of a call by a service.
func calledBy(ctx context.Context, service string, md metadata.MD) context.Context {
	ctx = metadata.NewIncomingContext(ctx, md)
	return rpc.WithCaller(ctx, rpc.Caller{Peer: identity.ID{Kind: identity.KindService, Service: service}})
}

func TestCallsGoWhereTheyBelong(t *testing.T) {
	stale, linear := registryv1.ReadMode_READ_MODE_STALE, registryv1.ReadMode_READ_MODE_LINEARIZABLE
	by := func(service, key string) context.Context {
		return calledBy(context.Background(), service, metadata.Pairs(key, "x", "authorization", "Bearer secret"))
	}
	from := func(key string) context.Context { return by("registry", key) }
	for name, c := range map[string]struct {
		leader string
		ctx    context.Context
		method string
		req    proto.Message
		want   []string
		reason string
	}{
		"default read on the leader":                {"s1", nil, "/get", &registryv1.GetRequest{}, []string{"here"}, ""},
		"default read on a follower":                {"s2", nil, "/get", &registryv1.GetRequest{}, []string{"ask s2", "s2"}, ""},
		"blocking read on a follower":               {"s2", nil, "/get", &registryv1.GetRequest{Index: 3}, []string{"s2"}, ""},
		"proposal on a follower":                    {"s2", nil, "/propose", &registryv1.SetRequest{}, []string{"here"}, ""},
		"stale read on a follower":                  {"s2", nil, "/get", &registryv1.GetRequest{ReadMode: stale}, []string{"here"}, ""},
		"stale read without a leader":               {"", nil, "/get", &registryv1.GetRequest{ReadMode: stale}, []string{"here"}, ""},
		"linearizable read":                         {"s1", nil, "/get", &registryv1.GetRequest{ReadMode: linear}, []string{"here"}, ""},
		"own datacenter by name":                    {"s1", nil, "/get", &registryv1.GetRequest{Datacenter: "dc1"}, []string{"here"}, ""},
		"own datacenter as local":                   {"s1", nil, "/get", &registryv1.GetRequest{Datacenter: "local"}, []string{"here"}, ""},
		"other datacenter":                          {"s1", nil, "/get", &registryv1.GetRequest{Datacenter: "dc2"}, []string{"dc2"}, ""},
		"stale read of other datacenter":            {"s1", nil, "/get", &registryv1.GetRequest{Datacenter: "dc2", ReadMode: stale}, []string{"dc2"}, ""},
		"unknown datacenter":                        {"s1", nil, "/get", &registryv1.GetRequest{Datacenter: "dc9"}, nil, ReasonUnknownDatacenter},
		"global write":                              {"s1", nil, "/set", &registryv1.SetRequest{Scope: registryv1.Scope_SCOPE_GLOBAL, Datacenter: "dc2"}, []string{"dc0"}, ""},
		"local write on a follower":                 {"s2", nil, "/set", &registryv1.SetRequest{}, []string{"s2"}, ""},
		"anywhere":                                  {"s2", nil, "/status", &registryv1.ClusterStatusRequest{}, []string{"here"}, ""},
		"second hop between datacenters":            {"s1", from(hopDatacenter), "/get", &registryv1.GetRequest{Datacenter: "dc2"}, nil, ReasonForwardingLoop},
		"global write sent to no primary":           {"s1", from(hopDatacenter), "/set", &registryv1.SetRequest{Scope: registryv1.Scope_SCOPE_GLOBAL}, nil, ReasonForwardingLoop},
		"from a datacenter to the leader":           {"s2", from(hopDatacenter), "/get", &registryv1.GetRequest{}, []string{"ask s2", "s2"}, ""},
		"second hop to a leader":                    {"s2", from(hopServer), "/get", &registryv1.GetRequest{}, nil, fault.ReasonNoLeader},
		"marks of a service that passes nothing on": {"s1", by("gateway", hopDatacenter), "/get", &registryv1.GetRequest{Datacenter: "dc2"}, []string{"dc2"}, ""},
		"not routed":                                {"", nil, "/other", &registryv1.GetRequest{}, []string{"here"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{leader: c.leader, confirmed: 1}
			ctx := c.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			err := w.do(ctx, t, newRouter(t, w), c.method, c.req)
			require.Equal(t, c.reason, fault.ReasonOf(err))
			require.Equal(t, c.want, w.calls)
			if c.ctx != nil && len(w.md) > 0 {
				require.Equal(t, []string{"Bearer secret"}, w.md.Get("authorization"), "the token travels along")
				require.Equal(t, slices.Contains(c.want, "s2"), len(w.md.Get(hopServer)) > 0)
				require.NotEmpty(t, w.md.Get(hopDatacenter))
			}
		})
	}
}

func TestAFollowerAnswersWhenItHasWhatTheLeaderHad(t *testing.T) {
	for name, mode := range map[string]registryv1.ReadMode{
		"default": registryv1.ReadMode_READ_MODE_DEFAULT, "linearizable": registryv1.ReadMode_READ_MODE_LINEARIZABLE,
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{leader: "s2", confirmed: 7, published: 7, errs: []error{(&world{}).noLeader()}}
			require.NoError(t, w.do(t.Context(), t, newRouter(t, w), "/get", &registryv1.GetRequest{ReadMode: mode}))
			require.Equal(t, []string{"ask s2", "ask s2", "here"}, w.calls, "asked again after an election")

			w = &world{leader: "s2", confirmed: 8, published: 7}
			require.NoError(t, w.do(t.Context(), t, newRouter(t, w), "/get", &registryv1.GetRequest{ReadMode: mode}))
			require.Equal(t, []string{"ask s2", "s2"}, w.calls, "the leader is faster than waiting")
		})
	}
}

func TestAFollowerOfALaterTermDoesNotConfirmALeader(t *testing.T) {
	w := &world{leader: "s2", confirmed: 7, published: 7, term: 5, leaderTerms: []uint64{4, 5}}
	require.NoError(t, w.do(t.Context(), t, newRouter(t, w), "/get", &registryv1.GetRequest{ReadMode: registryv1.ReadMode_READ_MODE_LINEARIZABLE}))
	require.Equal(t, []string{"ask s2", "ask s2", "here"}, w.calls)
}

func TestProposalsGoToTheLeaderTogether(t *testing.T) {
	cmds := func(n int) []*registryv1.Command {
		out := make([]*registryv1.Command, n)
		for i := range out {
			out[i] = &registryv1.Command{}
		}
		return out
	}
	unknown := fault.New(fault.Unknown, fault.ReasonOutcomeUnknown, "who knows")
	for name, c := range map[string]struct {
		leader string
		errs   []error
		want   []string
	}{
		"on the leader":            {"s1", nil, []string{"here"}},
		"on a follower":            {"s2", nil, []string{"s2"}},
		"through an election":      {"s2", []error{(&world{}).noLeader()}, []string{"s2", "s2"}},
		"after an unknown outcome": {"s2", []error{unknown}, []string{"s2", "s2"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{leader: c.leader, errs: c.errs}
			sent := cmds(3)
			for i, outcome := range newRouter(t, w).Propose(t.Context(), sent...) {
				require.NoError(t, outcome.Err)
				require.EqualValues(t, i, outcome.Result.GetIndex())
				require.Equal(t, fmt.Sprintf("id-%d", i+1), sent[i].GetRequestId())
			}
			require.Equal(t, c.want, w.calls)
		})
	}
	final := fault.New(fault.ResourceExhausted, "WRITE_QUEUE_FULL", "full")
	w := &world{leader: "s2", errs: []error{final}}
	require.ErrorIs(t, newRouter(t, w).Propose(t.Context(), cmds(1)...)[0].Err, final)
	w = &world{leader: "s2"}
	outcome := newRouter(t, w).Propose(t.Context(), cmds(5)...)[4]
	require.Equal(t, ReasonQueueFull, fault.ReasonOf(outcome.Err), "five do not fit where four may wait")
	require.Empty(t, w.calls)
}

func TestWritesGetAnIDAndAreRepeatedWhenThatIsSafe(t *testing.T) {
	bare := fault.New(fault.Unavailable, "", "connection refused")
	unknown := fault.New(fault.Unknown, fault.ReasonOutcomeUnknown, "who knows")
	w := &world{leader: "s2", errs: []error{bare, unknown, (&world{}).noLeader()}}
	req := &registryv1.SetRequest{}
	require.NoError(t, w.do(t.Context(), t, newRouter(t, w), "/set", req))
	require.Equal(t, []string{"s2", "s2", "s2", "s2"}, w.calls)
	require.Equal(t, "id-1", req.GetRequestId(), "one id for all tries")
	require.Equal(t, []string{"1"}, w.md.Get(hopNamed))

	final := fault.New(fault.Aborted, "CAS_MISMATCH", "moved")
	w = &world{leader: "s2", errs: []error{final}}
	require.ErrorIs(t, w.do(t.Context(), t, newRouter(t, w), "/set", &registryv1.SetRequest{RequestId: "mine"}), final)
	require.Len(t, w.calls, 1)
}

// The digest guards ids of callers. One that a server made up is nobody else's, however many
// servers the call passes.
func TestOnlyIDsOfCallersAreSigned(t *testing.T) {
	digest := func(ctx context.Context, requestID string) (digest uint64) {
		r := newRouter(t, &world{leader: "s1"})
		_, err := r.Unary(ctx, &registryv1.SetRequest{RequestId: requestID, Key: "k"}, &grpc.UnaryServerInfo{FullMethod: "/set"}, func(ctx context.Context, req any) (any, error) {
			cmd := &registryv1.Command{RequestId: fsm.RequestIDOf(req)}
			sign(ctx, cmd, r.Admit)
			digest = cmd.GetDigest()
			return nil, nil
		})
		require.NoError(t, err)
		return digest
	}
	require.NotZero(t, digest(t.Context(), "mine"))
	require.Zero(t, digest(t.Context(), ""))

	for id, signed := range map[string]bool{"": false, "mine": true} {
		w := &world{leader: "s2"}
		require.NoError(t, w.do(t.Context(), t, newRouter(t, w), "/set", &registryv1.SetRequest{RequestId: id}))
		passed := digest(calledBy(t.Context(), "registry", w.md), "the one it got")
		require.Equal(t, signed, passed != 0, "passed on with id %q", id)
	}
}

func TestARefusalDoesNotHideThatATryBeforeItMayHaveBeenDone(t *testing.T) {
	refusals := make([]error, 2000)
	for i := range refusals {
		refusals[i] = (&world{}).noLeader()
	}
	bare := fault.New(fault.Unavailable, "", "connection reset")
	brief := func(w *world) *Router {
		r := newRouter(t, w)
		r.patience = 100 * time.Millisecond
		return r
	}
	for name, first := range map[string]struct {
		err  error
		want string
	}{
		"only refusals":        {refusals[0], fault.ReasonNoLeader},
		"lost on the way":      {bare, fault.ReasonOutcomeUnknown},
		"cut loose on its way": {errLeaderMoved, fault.ReasonOutcomeUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			errs := append([]error{first.err}, refusals...)
			w := &world{leader: "s2", errs: slices.Clone(errs)}
			require.Equal(t, first.want, fault.ReasonOf(brief(w).Propose(t.Context(), &registryv1.Command{})[0].Err))
			w = &world{leader: "s2", errs: slices.Clone(errs)}
			require.Equal(t, first.want, fault.ReasonOf(w.do(t.Context(), t, brief(w), "/set", &registryv1.SetRequest{})))
		})
	}
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

func TestAWriteLostOnItsWayToAnotherDatacenterHasAnUnknownOutcome(t *testing.T) {
	bare := fault.New(fault.Unavailable, "", "connection reset")
	set := &registryv1.SetRequest{Datacenter: "dc2"}
	for name, c := range map[string]struct {
		method  string
		req     proto.Message
		reached []bool
		errs    []error
		want    string
	}{
		"never left":             {"/set", set, []bool{false, false, false}, []error{bare, bare, bare}, ReasonDatacenterUnreachable},
		"lost":                   {"/set", set, []bool{true, true, true}, []error{bare, bare, bare}, fault.ReasonOutcomeUnknown},
		"lost, then cut off":     {"/set", set, []bool{true, false, false}, []error{bare, bare, bare}, fault.ReasonOutcomeUnknown},
		"lost, then refused":     {"/set", set, []bool{true, true}, []error{bare, (&world{}).noLeader()}, fault.ReasonOutcomeUnknown},
		"refused":                {"/set", set, []bool{true}, []error{(&world{}).noLeader()}, fault.ReasonNoLeader},
		"cut off, then refused":  {"/set", set, []bool{false, true}, []error{bare, (&world{}).noLeader()}, fault.ReasonNoLeader},
		"a read that was lost":   {"/get", &registryv1.GetRequest{Datacenter: "dc2"}, []bool{true, true, true}, []error{bare, bare, bare}, ReasonDatacenterUnreachable},
		"lost, then not allowed": {"/set", set, []bool{true, true}, []error{bare, fault.New(fault.PermissionDenied, "DENIED", "no")}, "DENIED"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{leader: "s1", reached: c.reached, errs: c.errs}
			err := w.do(t.Context(), t, newRouter(t, w), c.method, c.req)
			require.Equal(t, c.want, fault.ReasonOf(err))
			if c.want == fault.ReasonOutcomeUnknown {
				f, ok := fault.As(err)
				require.True(t, ok)
				require.Equal(t, "dc2", f.Meta()["datacenter"])
				require.NotEmpty(t, f.Remedy())
			}
		})
	}
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

func TestACommandThatIsTooLargeIsRefusedBeforeItIsProposed(t *testing.T) {
	put := func(bytes int) *registryv1.Operation {
		return &registryv1.Operation{Op: &registryv1.Operation_Put{Put: &registryv1.Record{Table: registryv1.Table_TABLE_KV, Key: "local/k", Value: make([]byte, bytes)}}}
	}
	for name, c := range map[string]struct {
		operations []*registryv1.Operation
		refused    bool
	}{
		"many changes":     {slices.Repeat([]*registryv1.Operation{put(0)}, mostOperations), false},
		"too many changes": {slices.Repeat([]*registryv1.Operation{put(0)}, mostOperations+1), true},
		"too many bytes":   {[]*registryv1.Operation{put(mostBytes)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{leader: "s1"}
			outcome := newRouter(t, w).Propose(t.Context(), &registryv1.Command{Operations: c.operations})[0]
			if !c.refused {
				require.NoError(t, outcome.Err)
				return
			}
			require.Equal(t, ReasonCommandTooLarge, fault.ReasonOf(outcome.Err))
			require.Equal(t, fault.InvalidArgument, fault.CodeOf(outcome.Err))
		})
	}
}

// Without a token, a server that passes a call on would act as itself.
func TestWhoHasNoTokenHasNoneElsewhere(t *testing.T) {
	caller := rpc.Caller{Peer: identity.ID{Kind: identity.KindService, Service: "gateway"}}
	token := func(caller rpc.Caller) []string {
		w := &world{leader: "s2"}
		require.NoError(t, w.do(rpc.WithCaller(t.Context(), caller), t, newRouter(t, w), "/set", &registryv1.SetRequest{}))
		return w.md.Get("authorization")
	}
	require.Empty(t, token(caller), "a service that acts as itself")
	caller.Grant = "what somebody without a token may do"
	require.Equal(t, []string{"Bearer " + rpc.AnonymousToken}, token(caller))
}

// to makes empty responses of a type.
func to[T any, P interface {
	*T
	proto.Message
}]() func() proto.Message {
	return func() proto.Message { return P(new(T)) }
}
