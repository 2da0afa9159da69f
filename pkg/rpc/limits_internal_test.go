package rpc

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/peer"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
)

const testMessage = 8 << 20

// caller is the context of calls over one new connection.
func caller(t *testing.T, b *bounds, c class) (context.Context, *connection) {
	t.Helper()
	require.NoError(t, b.arrive())
	near, far := net.Pipe()
	t.Cleanup(func() { _ = far.Close() })
	conn := b.admit(near, c)
	return peer.NewContext(t.Context(), &peer.Peer{AuthInfo: peerInfo{conn: conn}}), conn
}

func testBounds() *bounds { return newBounds(config.DefaultLimits(), testMessage, func(string) {}) }

func TestRequestsBeingReadAreBounded(t *testing.T) {
	for _, tc := range []struct {
		name        string
		class       class
		connections int
		// fit is how many requests of unknown size may be read at once.
		fit int
	}{
		{"one connection of an agent", guest, 1, 2},
		{"many connections of agents", guest, 100, 8},
		{"one connection of a service", component, 1, 24},
		{"many connections of services", component, 100, 24},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := testBounds()
				var ctxs []context.Context
				for range tc.connections {
					ctx, _ := caller(t, b, tc.class)
					ctxs = append(ctxs, ctx)
				}
				var open []held
				for i := range tc.fit {
					h, err := b.begin(ctxs[i%len(ctxs)])
					require.NoError(t, err)
					open = append(open, h)
				}
				start := time.Now()
				_, err := b.begin(ctxs[tc.fit%len(ctxs)])
				require.Equal(t, ReasonInflightLimit, fault.ReasonOf(err))
				require.Equal(t, b.RequestReadTimeout, time.Since(start))

				// Those that turn out small make room, though they go on.
				for i := range open {
					open[i].received(100)
				}
				for range tc.fit - 1 {
					_, err := b.begin(ctxs[0])
					if tc.class == guest && tc.connections > 1 {
						break // One connection has less than all of them.
					}
					require.NoError(t, err)
				}
			})
		})
	}
}

func TestWhatEndsGivesAllBack(t *testing.T) {
	b := testBounds()
	ctx, conn := caller(t, b, guest)
	for range 1000 {
		h, err := b.begin(ctx)
		require.NoError(t, err)
		h.received(1 << 20)
		h.end()
		h.end()
	}
	require.Zero(t, conn.calls.Load())
	require.Zero(t, conn.reading[0].Load()+conn.reading[1].Load())
	require.True(t, conn.inflight.TryAcquire(b.connectionBytes()))
	require.NoError(t, conn.Close())
	_ = conn.Close()
	require.Zero(t, b.total)
	require.Zero(t, b.strangers)
	require.Empty(t, b.open)
}

func TestSlowRequestsCostTheirConnection(t *testing.T) {
	for _, tc := range []struct {
		name   string
		class  class
		finish bool
		gone   bool
	}{
		{"an agent's request that does not come", guest, false, true},
		{"an agent's request that came, while its call goes on", guest, true, false},
		{"a service's request that does not come", component, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := testBounds()
			ctx, conn := caller(t, b, tc.class)
			h, err := b.begin(ctx)
			require.NoError(t, err)
			if tc.finish {
				h.received(10)
			}
			b.closeSlow(time.Now())
			require.Len(t, b.open, 1, "it has one turn at least")
			b.closeSlow(time.Now())
			_, open := b.open[conn]
			require.Equal(t, !tc.gone, open)
		})
	}
}

func TestStrangersDoNotStay(t *testing.T) {
	b := testBounds()
	_, conn := caller(t, b, stranger)
	b.closeSlow(conn.since.Add(strangerLifetime))
	require.Len(t, b.open, 1)
	b.closeSlow(conn.since.Add(strangerLifetime + time.Second))
	require.Empty(t, b.open)
}
