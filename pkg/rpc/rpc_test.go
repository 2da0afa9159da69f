package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	agentv1 "konsul.dev/proto/gen/konsul/agent/v1"
	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	replicatorv1 "konsul.dev/proto/gen/konsul/replicator/v1"
)

func TestFaultsSurviveTheWire(t *testing.T) {
	want := fault.New(fault.Aborted, "CAS_MISMATCH", "key moved on").
		WithField("cas").WithRemedy("read again").WithMeta("index", "7").WithRetryAfter(2 * time.Second)
	got, ok := fault.As(rpc.FromStatus(rpc.ToStatus(want.Wrap(errors.New("inner"))).Err()))
	require.True(t, ok)
	require.Equal(t, want.Code(), got.Code())
	require.Equal(t, want.Reason(), got.Reason())
	require.Equal(t, want.Field(), got.Field())
	require.Equal(t, want.Remedy(), got.Remedy())
	require.Equal(t, want.Meta(), got.Meta())
	require.Equal(t, want.RetryAfter(), got.RetryAfter())
	require.NotContains(t, got.Error(), "inner")
}

func TestUntypedErrorsShowNoInnerText(t *testing.T) {
	st := rpc.ToStatus(errors.New("secret detail"))
	require.Equal(t, codes.Internal, st.Code())
	require.NotContains(t, st.Message(), "secret")
}

// federation returns GetFederation with whoever called.
type federation struct {
	federationv1.UnimplementedFederationServiceServer
	fail error
}

func (f federation) GetFederation(ctx context.Context, _ *federationv1.GetFederationRequest) (*federationv1.GetFederationResponse, error) {
	if f.fail != nil {
		return nil, f.fail
	}
	caller := rpc.CallerFrom(ctx)
	return &federationv1.GetFederationResponse{Federation: &federationv1.Federation{Id: caller.Accessor, Datacenter: caller.Peer.Service}}, nil
}

type tokens struct{}

func (tokens) CheckToken(_ context.Context, secret string) (string, any, error) {
	switch secret {
	case "good":
		return "alice", nil, nil
	case rpc.AnonymousToken:
		return "", nil, fault.New(fault.Unauthenticated, rpc.ReasonTokenRequired, "no token")
	}
	return "", nil, fault.New(fault.Unauthenticated, "TOKEN_UNKNOWN", "unknown token")
}

func serve(t *testing.T, ca *identitytest.CA, impl federation, access rpc.Access) string {
	t.Helper()
	server, err := rpc.NewServer(rpc.ServerParams{
		Name: "test", Identity: ca.Source("us-east", "registry"), Access: access, Tokens: tokens{}, Telemetry: obs.Discard(),
	})
	require.NoError(t, err)
	federationv1.RegisterFederationServiceServer(server, impl)
	server.Serving()
	return listen(t, server)
}

func listen(t *testing.T, server *rpc.Server) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Drain(t.Context()) })
	return listener.Addr().String()
}

func dial(t *testing.T, ca *identitytest.CA, addr, dc, service string) *grpc.ClientConn {
	t.Helper()
	conn, err := rpc.Dial([]string{addr}, rpc.ClientParams{
		Identity: ca.Source(dc, service), Want: identity.Want{Datacenter: "us-east", Service: "registry"}, Telemetry: obs.Discard(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

func TestAccessTable(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	const name = "konsul.federation.v1.FederationService"
	table := rpc.Access{name: {Peers: []rpc.Peer{{Service: "agent"}, {Service: "ca", AnyDC: true}}, TokenPeers: []rpc.Peer{{Service: "gateway"}}}}
	addr := serve(t, ca, federation{}, table)
	for testName, c := range map[string]struct {
		dc, service, token string
		code               fault.Code
		accessor           string
	}{
		"peer of own datacenter":            {dc: "us-east", service: "agent"},
		"same service elsewhere":            {dc: "us-west", service: "agent", code: fault.PermissionDenied},
		"peer of any datacenter":            {dc: "us-west", service: "ca"},
		"not listed":                        {dc: "us-east", service: "replicator", code: fault.PermissionDenied},
		"carrier without token":             {dc: "us-east", service: "gateway", code: fault.Unauthenticated},
		"carrier with wrong token":          {dc: "us-east", service: "gateway", token: "bad", code: fault.Unauthenticated},
		"carrier with token":                {dc: "us-east", service: "gateway", token: "good", accessor: "alice"},
		"a token does not lift other peers": {dc: "us-east", service: "replicator", token: "good", code: fault.PermissionDenied},
	} {
		t.Run(testName, func(t *testing.T) {
			ctx := t.Context()
			if c.token != "" {
				ctx = rpc.WithToken(ctx, c.token)
			}
			conn := dial(t, ca, addr, c.dc, c.service)
			resp, err := federationv1.NewFederationServiceClient(conn).GetFederation(ctx, &federationv1.GetFederationRequest{})
			if c.code != fault.Internal {
				require.Equal(t, c.code, fault.CodeOf(err), "%v", err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.service, resp.GetFederation().GetDatacenter())
			require.Equal(t, c.accessor, resp.GetFederation().GetId())
		})
	}
}

func TestWhatIsNotListedIsRefused(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	conn := dial(t, ca, serve(t, ca, federation{}, rpc.Access{}), "us-east", "agent")
	_, err := federationv1.NewFederationServiceClient(conn).GetFederation(t.Context(), &federationv1.GetFederationRequest{})
	require.Equal(t, rpc.ReasonUnknownMethod, fault.ReasonOf(err))
	_, err = healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{})
	require.NoError(t, err, "health is open to the own datacenter's services")
}

func TestInternalErrorsCarryARequestIDOnly(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	addr := serve(t, ca, federation{fail: errors.New("disk path /secret")},
		rpc.Access{"konsul.federation.v1.FederationService": {Peers: []rpc.Peer{{Service: "*"}}}})
	_, err := federationv1.NewFederationServiceClient(dial(t, ca, addr, "us-east", "agent")).GetFederation(t.Context(), &federationv1.GetFederationRequest{})
	require.Equal(t, fault.Internal, fault.CodeOf(err))
	require.ErrorContains(t, err, "request id")
	require.NotContains(t, err.Error(), "secret")
}

func TestAWrongServerIsNotBelieved(t *testing.T) {
	ca, stranger := identitytest.NewCA(t, identitytest.FederationID), identitytest.NewCA(t, identitytest.FederationID)
	conn := dial(t, ca, serve(t, stranger, federation{}, rpc.Access{}), "us-east", "agent")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := federationv1.NewFederationServiceClient(conn).GetFederation(ctx, &federationv1.GetFederationRequest{})
	require.Equal(t, fault.Unavailable, fault.CodeOf(err), "%v", err)
	require.Equal(t, codes.Unavailable, status.Code(rpc.ToStatus(err).Err()))
}

func TestAServerStoppedBeforeItServesDidNotFail(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	server, err := rpc.NewServer(rpc.ServerParams{Name: "test", Identity: ca.Source("us-east", "registry"), Telemetry: obs.Discard()})
	require.NoError(t, err)
	server.Drain(t.Context())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, server.Serve(listener))
}

func TestInterceptorsRunInTheirOrderWithTheRequest(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	var seen []string
	noting := func(name string) grpc.UnaryServerInterceptor {
		return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			seen = append(seen, fmt.Sprintf("%s %T", name, req))
			return handler(ctx, req)
		}
	}
	server, err := rpc.NewServer(rpc.ServerParams{
		Name: "test", Identity: ca.Source("us-east", "registry"), Telemetry: obs.Discard(),
		Access: rpc.Access{"konsul.federation.v1.FederationService": {Peers: []rpc.Peer{{Service: "agent"}}}},
		Unary:  []grpc.UnaryServerInterceptor{noting("first"), noting("second")},
	})
	require.NoError(t, err)
	federationv1.RegisterFederationServiceServer(server, federation{})
	addr := listen(t, server)
	_, err = federationv1.NewFederationServiceClient(dial(t, ca, addr, "us-east", "agent")).GetFederation(t.Context(), &federationv1.GetFederationRequest{})
	require.NoError(t, err)
	require.Equal(t, []string{"first *federationv1.GetFederationRequest", "second *federationv1.GetFederationRequest"}, seen)
	_, err = federationv1.NewFederationServiceClient(dial(t, ca, addr, "us-east", "ca")).GetFederation(t.Context(), &federationv1.GetFederationRequest{})
	require.Equal(t, fault.PermissionDenied, fault.CodeOf(err))
	require.Len(t, seen, 2, "it was turned away before")
}

func TestAServerTakesWhatTheContractsSayOfIt(t *testing.T) {
	for name, c := range map[string]struct {
		server string
		tokens bool
		method string
		want   rpc.Rule
	}{
		"with a token": {"registry", true, registryv1.KVService_Get_FullMethodName, rpc.Rule{
			TokenPeers: []rpc.Peer{{Service: "gateway"}, {Service: "registry", AnyDC: true}},
		}},
		"before there are tokens": {"registry", true, registryv1.ACLService_Bootstrap_FullMethodName, rpc.Rule{
			Peers: []rpc.Peer{{Service: "gateway"}, {Service: "registry", AnyDC: true}},
		}},
		"programs only": {"registry", true, federationv1.ReplicationService_GetCursor_FullMethodName, rpc.Rule{
			Peers: []rpc.Peer{{Service: "replicator"}, {Service: "registry"}},
		}},
		"in front of another server": {"registry", true, replicatorv1.StatusService_GetStatus_FullMethodName, rpc.Rule{
			TokenPeers: []rpc.Peer{{Service: "gateway"}, {Service: "registry", AnyDC: true}},
		}},
		"behind another server":   {"replicator", false, replicatorv1.StatusService_GetStatus_FullMethodName, rpc.Rule{Peers: []rpc.Peer{{Service: "*"}}}},
		"a server without tokens": {"ca", false, cav1.CertificateService_CreateJoinToken_FullMethodName, rpc.Rule{Peers: []rpc.Peer{{Service: "gateway"}}}},
		"without a certificate":   {"ca", false, cav1.EnrollmentService_Enroll_FullMethodName, rpc.Rule{Anyone: true}},
	} {
		t.Run(name, func(t *testing.T) {
			access, err := rpc.AccessOf(c.server, c.tokens)
			require.NoError(t, err)
			require.Equal(t, c.want, access[c.method])
		})
	}
	access, err := rpc.AccessOf("registry", true)
	require.NoError(t, err)
	require.NotContains(t, access, cav1.EnrollmentService_Enroll_FullMethodName)
}

func TestAServerDoesNotStartWithAMethodOfWhichItsContractSaysNothing(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	server, err := rpc.NewServer(rpc.ServerParams{Name: "agent", Identity: ca.Source("us-east", "agent"), Telemetry: obs.Discard()})
	require.NoError(t, err)
	agentv1.RegisterAgentServiceServer(server, agentv1.UnimplementedAgentServiceServer{})
	federationv1.RegisterFederationServiceServer(server, federation{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	err = server.Serve(listener)
	require.ErrorContains(t, err, federationv1.FederationService_GetFederation_FullMethodName)
	require.NotContains(t, err.Error(), "AgentService")
}
