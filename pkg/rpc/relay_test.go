package rpc_test

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
)

const getFederation = federationv1.FederationService_GetFederation_FullMethodName

// relay passes calls on to another server; to none, it has them answered where they came in.
type relay struct {
	to *rpc.Server
	// seen are the callers whose calls came by, and in is what they asked.
	seen []string
	in   rpc.Encoded
}

func (r *relay) Relays(fullMethod string) bool { return fullMethod == getFederation }

func (r *relay) Relay(ctx context.Context, fullMethod string, request rpc.Encoded, here func(context.Context, rpc.Encoded) (any, error)) (any, error) {
	r.seen, r.in = append(r.seen, rpc.CallerFrom(ctx).Accessor), request
	if r.to == nil {
		return here(ctx, request)
	}
	return r.to.Call(ctx, fullMethod, request)
}

// relaying makes a server with a relay, and one interceptor that notes the type of what it is given.
func relaying(t *testing.T, ca *identitytest.CA, r *relay, impl federation) (*rpc.Server, *[]string) {
	t.Helper()
	types := &[]string{}
	server, err := rpc.NewServer(rpc.ServerParams{
		Name: "test", Identity: ca.Source("us-east", "registry"), Tokens: tokens{}, Telemetry: obs.Discard(), Relay: r,
		Access: rpc.Access{getFederation: {TokenPeers: []rpc.Peer{{Service: "gateway"}}}},
		Unary: []grpc.UnaryServerInterceptor{func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			*types = append(*types, string(req.(proto.Message).ProtoReflect().Descriptor().Name()))
			return handler(ctx, req)
		}},
	})
	require.NoError(t, err)
	federationv1.RegisterFederationServiceServer(server, impl)
	return server, types
}

func listen(t *testing.T, server *rpc.Server) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Drain(t.Context()) })
	return listener.Addr().String()
}

func TestCallsArePassedOnBehindTheDoor(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	last := &relay{}
	far, decoded := relaying(t, ca, last, federation{})
	first := &relay{to: far}
	near, untouched := relaying(t, ca, first, federation{fail: fault.New(fault.Internal, "", "not here")})
	client := federationv1.NewFederationServiceClient(dial(t, ca, listen(t, near), "us-east", "gateway"))
	resp, err := client.GetFederation(rpc.WithToken(t.Context(), "good"), &federationv1.GetFederationRequest{})
	require.NoError(t, err)
	require.Equal(t, "alice", resp.GetFederation().GetId(), "what was answered there is what the caller gets")
	require.Equal(t, []string{"alice"}, first.seen)
	require.Equal(t, []string{"alice"}, last.seen)
	require.Equal(t, []string{"GetFederationRequest"}, *decoded)
	require.Empty(t, *untouched)

	_, err = client.GetFederation(rpc.WithToken(t.Context(), "bad"), &federationv1.GetFederationRequest{})
	require.Equal(t, fault.Unauthenticated, fault.CodeOf(err))
	require.Len(t, first.seen, 1, "it was turned away")
}

func TestAFaultOfACallThatWasPassedOnSurvives(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	want := fault.New(fault.Aborted, "CAS_MISMATCH", "moved on").WithRemedy("read again")
	far, _ := relaying(t, ca, &relay{}, federation{fail: want})
	near, _ := relaying(t, ca, &relay{to: far}, federation{})
	_, err := federationv1.NewFederationServiceClient(dial(t, ca, listen(t, near), "us-east", "gateway")).
		GetFederation(rpc.WithToken(t.Context(), "good"), &federationv1.GetFederationRequest{})
	got, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, want.Reason(), got.Reason())
	require.Equal(t, want.Remedy(), got.Remedy())
	_, err = far.Call(t.Context(), "/konsul.federation.v1.FederationService/Other", nil)
	require.Equal(t, rpc.ReasonUnknownMethod, fault.ReasonOf(rpc.FromStatus(err)), "only what is passed on is taken so")
}

func TestARequestThatIsNoneIsRefusedByName(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	server, _ := relaying(t, ca, &relay{}, federation{})
	conn := dial(t, ca, listen(t, server), "us-east", "gateway")
	var reply rpc.Encoded
	err := conn.Invoke(rpc.WithToken(t.Context(), "good"), getFederation, rpc.Encoded{0xff}, &reply)
	f, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.InvalidArgument, f.Code())
	require.Equal(t, "request", f.Field())
	require.NotEmpty(t, f.Remedy())
}

func TestMetadataTravelsInsideOfACall(t *testing.T) {
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	ctx := trace.ContextWithSpanContext(rpc.WithToken(t.Context(), "secret"), span)
	carried := rpc.Carried(ctx, propagation.TraceContext{})
	require.Equal(t, "Bearer secret", carried["authorization"])
	require.Contains(t, carried["traceparent"], span.TraceID().String())
	came := rpc.CarriedBy(metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer the server's")), carried)
	require.Equal(t, "secret", rpc.Token(came), "what carried it does not speak for it")
}
