package rpc_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
)

const federationService = "konsul.federation.v1.FederationService"

// opened opens a call of getFederation and sends no request.
func opened(t *testing.T, conn *grpc.ClientConn) grpc.ClientStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/"+federationService+"/GetFederation")
	require.NoError(t, err)
	return stream
}

func answer(stream grpc.ClientStream) error {
	return stream.RecvMsg(&federationv1.GetFederationResponse{})
}

// Who calls is asked before anything of the request is read: these callers never send one.
func TestCallersAreRefusedBeforeTheirRequestIsRead(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	table := rpc.Access{federationService: {Peers: []rpc.Peer{{Service: "agent"}}, TokenPeers: []rpc.Peer{{Service: "gateway"}}}}
	addr := serve(t, ca, federation{}, table)
	for name, c := range map[string]struct {
		service string
		code    fault.Code
	}{
		"a service that may not call": {service: "replicator", code: fault.PermissionDenied},
		"a caller without a token":    {service: "gateway", code: fault.Unauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.code, fault.CodeOf(answer(opened(t, dial(t, ca, addr, "us-east", c.service)))))
		})
	}
}

func limited(t *testing.T, ca *identitytest.CA, rule rpc.Rule, limits config.Limits) string {
	t.Helper()
	server, err := rpc.NewServer(rpc.ServerParams{
		Name: "test", Identity: ca.Source("us-east", "registry"), Access: rpc.Access{federationService: rule},
		Telemetry: obs.Discard(), Limits: limits,
	})
	require.NoError(t, err)
	federationv1.RegisterFederationServiceServer(server, federation{})
	return listen(t, server)
}

func TestOneConnectionHasNoMoreCallsThanItMay(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	limits := config.DefaultLimits()
	limits.MaxConcurrentStreams = 16
	addr := limited(t, ca, rpc.Rule{Peers: []rpc.Peer{{Service: "*"}}}, limits)
	agent, component := dial(t, ca, addr, "us-east", "agent"), dial(t, ca, addr, "us-east", "gateway")
	for range limits.MaxConcurrentStreams {
		opened(t, agent)
		opened(t, component)
	}
	// The server counts a call when its handler begins: of one more, one is too many.
	var err error
	require.Eventually(t, func() bool {
		_, err = federationv1.NewFederationServiceClient(agent).GetFederation(t.Context(), &federationv1.GetFederationRequest{})
		return err != nil
	}, 10*time.Second, time.Millisecond)
	require.Equal(t, rpc.ReasonStreamLimit, fault.ReasonOf(err))
	f, _ := fault.As(err)
	require.Equal(t, fault.ResourceExhausted, f.Code())
	require.Positive(t, f.RetryAfter())
	_, err = federationv1.NewFederationServiceClient(component).GetFederation(t.Context(), &federationv1.GetFederationRequest{})
	require.NoError(t, err, "what carries the calls of many may have more")
}

func TestARequestThatDoesNotComeCostsTheConnection(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	limits := config.DefaultLimits()
	limits.RequestReadTimeout = time.Second
	addr := limited(t, ca, rpc.Rule{Peers: []rpc.Peer{{Service: "*"}}}, limits)
	require.Equal(t, fault.Unavailable, fault.CodeOf(answer(opened(t, dial(t, ca, addr, "us-east", "agent")))))
}

func TestConnectionsWithoutACertificateLeaveRoomForOthers(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	limits := config.DefaultLimits()
	limits.MaxConnections = 16
	addr := limited(t, ca, rpc.Rule{Anyone: true, Peers: []rpc.Peer{{Service: "*"}}}, limits)
	honest := dial(t, ca, addr, "us-east", "agent")
	get := func() error {
		_, err := federationv1.NewFederationServiceClient(honest).GetFederation(t.Context(), &federationv1.GetFederationRequest{})
		return err
	}
	require.NoError(t, get())
	var closed int
	for range limits.MaxConnections {
		conn, _, err := identity.DialUnverified(t.Context(), addr, "")
		if err != nil {
			closed++ // already in its handshake
			continue
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	require.GreaterOrEqual(t, closed, limits.MaxConnections*3/4)
	require.NoError(t, get())
}

func TestARequestLargerThanItMayBeIsRefused(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	addr := limited(t, ca, rpc.Rule{Peers: []rpc.Peer{{Service: "*"}}}, config.Limits{})
	conn := dial(t, ca, addr, "us-east", "agent")
	_, err := federationv1.NewFederationServiceClient(conn).GetFederation(t.Context(), encoded(make([]byte, 1<<20)))
	require.Equal(t, fault.ResourceExhausted, fault.CodeOf(err))
}

func TestABrokenRequestIsRefusedByName(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	addr := limited(t, ca, rpc.Rule{Peers: []rpc.Peer{{Service: "*"}}}, config.Limits{})
	conn := dial(t, ca, addr, "us-east", "agent")
	_, err := federationv1.NewFederationServiceClient(conn).GetFederation(t.Context(), encoded([]byte{0xff}))
	f, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.InvalidArgument, f.Code())
	require.Equal(t, "request", f.Field())
	require.NotEmpty(t, f.Remedy())
}

// encoded returns a request that is sent as the bytes of raw, whatever they are.
func encoded(raw []byte) *federationv1.GetFederationRequest {
	req := &federationv1.GetFederationRequest{}
	req.ProtoReflect().SetUnknown(raw)
	return req
}
