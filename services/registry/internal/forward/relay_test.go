package forward

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// shared is a method whose calls travel together.
const shared = registryv1.CatalogService_Deregister_FullMethodName

// pass relays a call and answers what it was answered, and the request as it came to be answered here.
func (w *world) pass(ctx context.Context, r *Router, req *registryv1.DeregisterRequest) (response any, here *registryv1.DeregisterRequest, err error) {
	request, err := proto.Marshal(req)
	if err != nil {
		return nil, nil, err
	}
	response, err = r.Relay(ctx, shared, request, func(_ context.Context, request rpc.Encoded) (any, error) {
		w.calls = append(w.calls, "here")
		here = &registryv1.DeregisterRequest{}
		return "answered here", errors.Join(proto.Unmarshal(request, here), w.nextError())
	})
	return response, here, err
}

func TestACallGoesToTheLeaderAsItCame(t *testing.T) {
	w := &world{leader: "s2"}
	ctx, cancel := context.WithTimeout(calledBy(t.Context(), "gateway", metadata.Pairs("authorization", "Bearer secret")), time.Minute)
	defer cancel()
	response, here, err := w.pass(ctx, newRouter(t, w), &registryv1.DeregisterRequest{ServiceId: "web-1", Datacenter: "local", RequestId: "mine"})
	require.NoError(t, err)
	require.Equal(t, rpc.Encoded("done"), response)
	require.Nil(t, here)
	require.Len(t, w.relayed, 1)
	call, got := w.relayed[0], &registryv1.DeregisterRequest{}
	require.NoError(t, proto.Unmarshal(call.GetRequest(), got))
	require.Equal(t, "mine", got.GetRequestId())
	require.Equal(t, "web-1", got.GetServiceId())
	require.Equal(t, shared, call.GetMethod())
	require.Equal(t, map[string]string{"authorization": "Bearer secret", hopServer: "s1"}, call.GetMetadata())
	require.Positive(t, call.GetTimeoutMs())
	require.LessOrEqual(t, call.GetTimeoutMs(), uint64(time.Minute.Milliseconds()))
}

func TestACallThatIsPassedOnGetsAnID(t *testing.T) {
	bare := fault.New(fault.Unavailable, "", "connection reset")
	w := &world{leader: "s2", errs: []error{bare, bare}}
	_, _, err := w.pass(t.Context(), newRouter(t, w), &registryv1.DeregisterRequest{ServiceId: "web-1"})
	require.NoError(t, err)
	require.Len(t, w.relayed, 3)
	for _, call := range w.relayed {
		got := &registryv1.DeregisterRequest{}
		require.NoError(t, proto.Unmarshal(call.GetRequest(), got))
		require.Equal(t, "id-1", got.GetRequestId(), "one id for all tries")
		require.Equal(t, "1", call.GetMetadata()[hopNamed])
		require.Zero(t, call.GetTimeoutMs())
	}
}

func TestCallsAreAnsweredHereWhereTheyBelongHere(t *testing.T) {
	for name, c := range map[string]struct {
		leader string
		ctx    context.Context
		req    *registryv1.DeregisterRequest
	}{
		"on the leader":            {"s1", t.Context(), &registryv1.DeregisterRequest{}},
		"from another server":      {"s2", calledBy(t.Context(), "registry", metadata.Pairs(hopServer, "s3")), &registryv1.DeregisterRequest{}},
		"about another datacenter": {"s2", t.Context(), &registryv1.DeregisterRequest{Datacenter: "dc2"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{leader: c.leader}
			response, here, err := w.pass(c.ctx, newRouter(t, w), c.req)
			require.NoError(t, err)
			require.Equal(t, "answered here", response)
			require.Empty(t, here.GetRequestId(), "whoever answers names the request")
			require.Equal(t, []string{"here"}, w.calls)
		})
	}
	w := &world{leader: "s2"}
	_, err := newRouter(t, w).Relay(t.Context(), shared, rpc.Encoded{0xff}, func(context.Context, rpc.Encoded) (any, error) {
		return nil, fault.Invalid("request", "is none")
	})
	require.Equal(t, fault.InvalidArgument, fault.CodeOf(err), "what cannot be read is refused here")
}

func TestACallIsAnsweredHereWhenThisServerComesToLead(t *testing.T) {
	w := &world{leader: "s2"}
	w.errs = []error{w.noLeader()}
	r := newRouter(t, w)
	r.Connections = elects{w}
	_, here, err := w.pass(t.Context(), r, &registryv1.DeregisterRequest{})
	require.NoError(t, err)
	require.Equal(t, []string{"s2", "here"}, w.calls)
	require.Equal(t, "id-1", here.GetRequestId(), "what was done under the id elsewhere is not done again")
}

// elects makes this server the leader as soon as it has asked another for a connection.
type elects struct{ *world }

func (e elects) Server(id string) (grpc.ClientConnInterface, error) {
	e.leader = "s1"
	return conn{e.world, id}, nil
}

func (e elects) Datacenter(string) (grpc.ClientConnInterface, error) { return nil, nil }

func TestALeaderThatTakesNoCallsInCompanyGetsThemOneByOne(t *testing.T) {
	w := &world{leader: "s2", takesNone: true}
	r := newRouter(t, w)
	for range 2 {
		_, _, err := w.pass(t.Context(), r, &registryv1.DeregisterRequest{})
		require.NoError(t, err)
	}
	require.Equal(t, []string{"s2", "s2"}, w.calls)
	require.Equal(t, 1, w.streams, "it is not asked again")
	require.Equal(t, []string{"s1"}, w.md.Get(hopServer))
	require.NoError(t, r.Propose(t.Context(), &registryv1.Command{})[0].Err, "it takes proposals")
	require.Equal(t, 2, w.streams)

	w.takesNone = false
	r.lines.forget() // Somebody else led for a while: it may have been upgraded.
	_, _, err := w.pass(t.Context(), r, &registryv1.DeregisterRequest{})
	require.NoError(t, err)
	require.Len(t, w.relayed, 1)
}

func TestWhatTheLeaderSaysOfACallIsWhatTheCallerHears(t *testing.T) {
	denied := fault.New(fault.PermissionDenied, "DENIED", "no").WithField("service_id").WithRemedy("ask")
	w := &world{leader: "s2", errs: []error{denied}}
	_, _, err := w.pass(t.Context(), newRouter(t, w), &registryv1.DeregisterRequest{})
	f, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, denied.Code(), f.Code())
	require.Equal(t, denied.Reason(), f.Reason())
	require.Equal(t, denied.Field(), f.Field())
	require.Equal(t, denied.Remedy(), f.Remedy())
}

func TestACallerWhoGoesHearsThatTheOutcomeIsNotKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{leader: "s2", block: true}
		r := newRouter(t, w)
		ctx, cancel := context.WithCancel(t.Context())
		failure := make(chan error)
		go func() {
			_, _, err := w.pass(ctx, r, &registryv1.DeregisterRequest{})
			failure <- err
		}()
		synctest.Wait()
		cancel()
		require.Equal(t, fault.ReasonOutcomeUnknown, fault.ReasonOf(<-failure))
		r.flights.strand("s3")
		synctest.Wait()
	})
}

func TestCallsThatFindNoRoomAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{leader: "s2", block: true}
		r := newRouter(t, w)
		r.MaxInFlight = 1
		first := make(chan error)
		go func() {
			_, _, err := w.pass(t.Context(), r, &registryv1.DeregisterRequest{})
			first <- err
		}()
		synctest.Wait()
		_, _, err := w.pass(t.Context(), r, &registryv1.DeregisterRequest{})
		require.Equal(t, ReasonQueueFull, fault.ReasonOf(err))
		require.Equal(t, fault.ResourceExhausted, fault.CodeOf(err))
		w.leader = "s3"
		r.flights.strand("s3")
		require.NoError(t, <-first)
	})
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

func TestFieldsAreFoundInRequestsThatAreNotDecoded(t *testing.T) {
	fields := fieldsOf(shared)
	request, err := proto.Marshal(&registryv1.DeregisterRequest{ServiceId: "web-1", Datacenter: "dc1", RequestId: "first"})
	require.NoError(t, err)
	again, err := proto.Marshal(&registryv1.DeregisterRequest{RequestId: "last"})
	require.NoError(t, err)
	requestID, datacenter, err := fields.read(append(request, again...))
	require.NoError(t, err)
	require.Equal(t, "last", requestID)
	require.Equal(t, "dc1", datacenter)
	require.Panics(t, func() { fieldsOf("/konsul.registry.v1.CatalogService/Nothing") })
}

// FuzzSharedFields reads what decoders read.
func FuzzSharedFields(f *testing.F) {
	seed, err := proto.Marshal(&registryv1.DeregisterRequest{ServiceId: "web-1", Datacenter: "dc1", RequestId: "first"})
	require.NoError(f, err)
	f.Add(seed)
	f.Add([]byte{0xff, 0x00})
	fields := fieldsOf(shared)
	f.Fuzz(func(t *testing.T, request []byte) {
		requestID, datacenter, err := fields.read(request)
		want := &registryv1.DeregisterRequest{}
		if proto.Unmarshal(request, want) != nil {
			return // Whoever answers refuses it.
		}
		require.NoError(t, err)
		require.Equal(t, want.GetRequestId(), requestID)
		require.Equal(t, want.GetDatacenter(), datacenter)
	})
}
