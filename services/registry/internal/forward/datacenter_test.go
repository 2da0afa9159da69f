package forward

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// dialled gives the router one real connection, whichever peer it asks for.
type dialled struct{ conn *grpc.ClientConn }

func (d dialled) Server(string) (grpc.ClientConnInterface, error)     { return d.conn, nil }
func (d dialled) Datacenter(string) (grpc.ClientConnInterface, error) { return d.conn, nil }

func TestWhetherAWriteLeftForAnotherDatacenterIsKnownFromTheConnection(t *testing.T) {
	write := func(t *testing.T, address string) error {
		t.Helper()
		conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				return rpc.FromStatus(invoke(ctx, method, req, reply, conn, opts...))
			}))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, conn.Close()) })
		w := &world{leader: "s1"}
		r := newRouter(t, w)
		r.Connections = dialled{conn}
		r.Routes["/konsul.Test/Set"] = r.Routes["/set"]
		return w.do(t.Context(), t, r, "/konsul.Test/Set", &registryv1.SetRequest{Datacenter: "dc2"})
	}
	listen := func(t *testing.T) net.Listener {
		t.Helper()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		return l
	}
	t.Run("refused connection", func(t *testing.T) {
		l := listen(t)
		require.NoError(t, l.Close())
		require.Equal(t, ReasonDatacenterUnreachable, fault.ReasonOf(write(t, l.Addr().String())))
	})
	t.Run("connection lost while the write is out", func(t *testing.T) {
		l := listen(t)
		var server *grpc.Server
		stopped := make(chan struct{})
		server = grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			go func() { defer close(stopped); server.Stop() }()
			<-stream.Context().Done()
			return stream.Context().Err()
		}))
		go func() { _ = server.Serve(l) }()
		require.Equal(t, fault.ReasonOutcomeUnknown, fault.ReasonOf(write(t, l.Addr().String())))
		<-stopped
	})
}

func TestADatacenterThatHasBeenAwayIsTriedOnceAndTheCallerNotAskedToComeBackSoon(t *testing.T) {
	w := &world{leader: "s1"}
	r := newRouter(t, w)
	ask := func(fails ...error) *fault.Error {
		w.errs = fails
		err := w.do(t.Context(), t, r, "/get", &registryv1.GetRequest{Datacenter: "dc2"})
		f, _ := fault.As(err)
		return f
	}
	broken := fault.New(fault.Unavailable, "", "connection broke")
	f := ask(broken, broken, broken)
	require.Equal(t, ReasonDatacenterUnreachable, f.Reason())
	require.Equal(t, time.Second, f.RetryAfter(), "it may be back in a moment")

	r.away.first["dc2"] = r.away.first["dc2"].Add(-time.Minute)
	f = ask(broken, broken, broken)
	require.Equal(t, ReasonDatacenterUnreachable, f.Reason())
	require.Equal(t, awayRetry, f.RetryAfter())
	require.Contains(t, f.Message(), "has not answered for 1m")
	require.Len(t, w.errs, 2, "one try finds out whether it is back")

	require.Nil(t, ask(), "it is")
	require.Zero(t, r.away.since("dc2"))
}
