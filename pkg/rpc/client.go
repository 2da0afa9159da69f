package rpc

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/obs"
)

// A peer that neither answers nor closes (paused, cut off) is noticed after keepaliveTime plus
// keepaliveTimeout.
const (
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 5 * time.Second
	connectTimeout   = 5 * time.Second
)

// Fixed windows, of what servers answer: to guess better ones, the library pings the peer for
// nearly every message, which costs a tenth of a small call. A stream brings 20 MB/s over a round
// trip of 100 ms.
const (
	streamWindow = 2 << 20
	connWindow   = 8 << 20
)

// ClientParams is what a client connection is made of.
type ClientParams struct {
	Identity identity.Source
	// Want is who must be at the other end.
	Want identity.Want
	// ServerName is the SNI to send; empty: none.
	ServerName string
	Telemetry  *obs.Telemetry
	// Lookup finds the addresses of names; nil: the system does. It is asked anew for each
	// connection.
	Lookup  Lookup
	Options []grpc.DialOption
}

// Dial returns a connection that spreads its calls over addrs (host:port each) and reconnects by
// itself. It does not wait: the first call does. Errors of calls are faults. Calls to a server that
// keeps its connection but has fallen silent end within about two seconds, as if the connection had
// broken, and the next ones go elsewhere until it is heard again.
func Dial(addrs []string, p ClientParams) (*grpc.ClientConn, error) {
	listening := newSilence(p.Telemetry.Log, dialer(p.Lookup))
	servers := make([]resolver.Address, len(addrs))
	for i, addr := range addrs {
		servers[i] = listening.address(addr)
	}
	static := manual.NewBuilderWithScheme("konsul-static")
	static.InitialState(resolver.State{Addresses: servers})
	options := append([]grpc.DialOption{
		grpc.WithResolvers(static),
		grpc.WithTransportCredentials(credentials.NewTLS(p.Identity.ClientTLS(p.Want, p.ServerName))),
	}, ClientOptions(p.Telemetry)...)
	options = append(options, listening.options()...)
	conn, err := grpc.NewClient(static.Scheme()+":///"+p.Want.Service, append(options, p.Options...)...)
	if err != nil {
		return nil, fmt.Errorf("make client for %s: %w", p.Want.Service, err)
	}
	listening.conn = conn
	return conn, nil
}

// DialDatacenter returns a connection to a component of another datacenter, through the own
// gateways' mutual TLS port. The gateways pass the bytes on; both ends verify each other.
func DialDatacenter(gatewayAddrs []string, datacenter, component string, p ClientParams) (*grpc.ClientConn, error) {
	p.Want = identity.Want{Datacenter: datacenter, Service: component}
	p.ServerName = identity.ControlSNI(component, datacenter, identity.TrustDomain(p.Identity.ID().FederationID))
	return Dial(gatewayAddrs, p)
}

// ClientOptions is what every client of ours dials with, whatever its credentials: balancing,
// keepalive, tracing, and faults instead of statuses.
func ClientOptions(t *obs.Telemetry) []grpc.DialOption {
	reconnect := backoff.DefaultConfig
	reconnect.BaseDelay, reconnect.MaxDelay = 100*time.Millisecond, 2*time.Second
	return append([]grpc.DialOption{
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: connectTimeout}),
		grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(newCodec())),
		grpc.WithChainUnaryInterceptor(faultUnary),
		grpc.WithChainStreamInterceptor(faultStream),
	}, clientTracing(t)...)
}

func faultUnary(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return FromStatus(invoke(ctx, method, req, reply, conn, opts...))
}

func faultStream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := streamer(ctx, desc, conn, method, opts...)
	if err != nil {
		return nil, FromStatus(err)
	}
	return faultClientStream{stream}, nil
}

type faultClientStream struct{ grpc.ClientStream }

func (s faultClientStream) RecvMsg(m any) error { return FromStatus(s.ClientStream.RecvMsg(m)) }
func (s faultClientStream) SendMsg(m any) error { return FromStatus(s.ClientStream.SendMsg(m)) }
