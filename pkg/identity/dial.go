package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// dialTimeout bounds the way to a peer with its handshake: who asks again soon finds a name that
// exists by then.
const dialTimeout = 3 * time.Second

// DialUnverified opens TLS to addr without believing who answers, and returns a gRPC connection
// over exactly that TLS connection with its state. The caller proves and checks by channel binding.
// The TLS connection ends with ctx, at the latest.
func DialUnverified(ctx context.Context, addr, serverName string) (*grpc.ClientConn, tls.ConnectionState, error) {
	// A resolver of its own asks anew; a shared one joins a question for a name that is on its way,
	// and may wait long.
	dialer := tls.Dialer{NetDialer: &net.Dialer{Resolver: new(net.Resolver), Timeout: dialTimeout}, Config: &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, ServerName: serverName,
		InsecureSkipVerify: true,
	}}
	raw, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, tls.ConnectionState{}, fmt.Errorf("dial %s: %w", addr, err)
	}
	secured, ok := raw.(*tls.Conn)
	if !ok {
		return nil, tls.ConnectionState{}, fmt.Errorf("dial %s: no TLS connection", addr)
	}
	// A gRPC connection that is closed before its first call never owned the TLS connection.
	context.AfterFunc(ctx, func() { _ = secured.Close() })
	once := make(chan net.Conn, 1)
	once <- secured
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case c := <-once:
				return c, nil
			default:
				return nil, errors.New("the connection that was proven is gone")
			}
		}))
	if err != nil {
		return nil, tls.ConnectionState{}, errors.Join(fmt.Errorf("make client: %w", err), secured.Close())
	}
	return conn, secured.ConnectionState(), nil
}
