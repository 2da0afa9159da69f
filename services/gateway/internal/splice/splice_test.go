package splice_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"konsul.dev/services/gateway/internal/splice"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tcpPair returns the two ends of one TCP connection.
func tcpPair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	dialled, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	accepted, err := listener.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = dialled.Close(), accepted.Close() })
	return accepted.(*net.TCPConn), dialled.(*net.TCPConn)
}

type joined struct {
	client, server    *net.TCPConn
	forward, backward atomic.Int64
	done              chan error
}

// wrapped hides that a connection is TCP, as TLS does.
type wrapped struct{ net.Conn }

func (w wrapped) CloseWrite() error { return w.Conn.(*net.TCPConn).CloseWrite() }

func join(t *testing.T, tcp bool, o splice.Options) *joined {
	t.Helper()
	a, client := tcpPair(t)
	b, server := tcpPair(t)
	j := &joined{client: client, server: server, done: make(chan error, 1)}
	o.Forward = func(n int64) { j.forward.Add(n) }
	o.Backward = func(n int64) { j.backward.Add(n) }
	if o.Idle == 0 {
		o.Idle = time.Minute
	}
	var near net.Conn = a
	if !tcp {
		near = wrapped{a}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { j.done <- splice.New().Run(ctx, near, b, o) }()
	t.Cleanup(func() { cancel(errors.New("test over")) })
	return j
}

func (j *joined) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-j.done:
		return err
	case <-time.After(10 * time.Second):
		require.FailNow(t, "the pair does not end")
		return nil
	}
}

func both(t *testing.T, test func(t *testing.T, tcp bool)) {
	t.Helper()
	t.Run("TCP", func(t *testing.T) { test(t, true) })
	t.Run("other connections", func(t *testing.T) { test(t, false) })
}

func TestBytesArriveAndDirectionsCloseOneByOne(t *testing.T) {
	both(t, func(t *testing.T, tcp bool) {
		j := join(t, tcp, splice.Options{})
		sent := make([]byte, 3<<20+17)
		_, err := rand.Read(sent)
		require.NoError(t, err)
		go func() {
			_, _ = j.client.Write(sent)
			_ = j.client.CloseWrite()
		}()
		got, err := io.ReadAll(j.server)
		require.NoError(t, err)
		require.True(t, bytes.Equal(sent, got))

		_, err = j.server.Write([]byte("still here"))
		require.NoError(t, err)
		require.NoError(t, j.server.CloseWrite())
		answer, err := io.ReadAll(j.client)
		require.NoError(t, err)
		require.Equal(t, "still here", string(answer))
		require.NoError(t, j.wait(t))
		require.Equal(t, int64(len(sent)), j.forward.Load())
		require.Equal(t, int64(len("still here")), j.backward.Load())
	})
}

func TestBytesAreCountedWhileTheConnectionLives(t *testing.T) {
	both(t, func(t *testing.T, tcp bool) {
		j := join(t, tcp, splice.Options{})
		_, err := j.client.Write([]byte("ping"))
		require.NoError(t, err)
		require.Eventually(t, func() bool { return j.forward.Load() == 4 }, 5*time.Second, 5*time.Millisecond)
		_, err = j.client.Write([]byte("ping"))
		require.NoError(t, err)
		got := make([]byte, 8)
		_, err = io.ReadFull(j.server, got)
		require.NoError(t, err)
		require.Eventually(t, func() bool { return j.forward.Load() == 8 }, 5*time.Second, 5*time.Millisecond)
	})
}

func TestSilenceEndsThePair(t *testing.T) {
	both(t, func(t *testing.T, tcp bool) {
		j := join(t, tcp, splice.Options{Idle: 500 * time.Millisecond})
		require.ErrorIs(t, j.wait(t), splice.ErrIdle)
		_, err := j.client.Read(make([]byte, 1))
		require.Error(t, err)
	})
}

func TestOneBusyDirectionKeepsTheOther(t *testing.T) {
	j := join(t, true, splice.Options{Idle: 2 * time.Second})
	until := time.Now().Add(3500 * time.Millisecond)
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for time.Now().Before(until) {
		<-ticker.C
		_, err := j.client.Write([]byte("."))
		require.NoError(t, err)
	}
	_, err := j.server.Write([]byte("!"))
	require.NoError(t, err)
	_, err = io.ReadFull(j.client, make([]byte, 1))
	require.NoError(t, err)
}

func TestDrainingEndsQuietPairsOnly(t *testing.T) {
	draining := make(chan struct{})
	silent := join(t, true, splice.Options{Draining: draining})
	busy := join(t, true, splice.Options{Draining: draining})
	close(draining)
	require.Eventually(t, func() bool {
		_, err := busy.client.Write([]byte("."))
		require.NoError(t, err)
		return len(silent.done) == 1
	}, 10*time.Second, 100*time.Millisecond)
	require.NoError(t, <-silent.done)
	require.Empty(t, busy.done)
}

func TestABrokenEndBreaksTheOther(t *testing.T) {
	j := join(t, true, splice.Options{})
	require.NoError(t, j.server.SetLinger(0))
	require.NoError(t, j.server.Close())
	require.Error(t, j.wait(t))
	_, err := j.client.Read(make([]byte, 1))
	require.Error(t, err)
}

func TestTheContextEndsIt(t *testing.T) {
	a, client := tcpPair(t)
	b, _ := tcpPair(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	ignore := func(int64) {}
	go func() {
		done <- splice.New().Run(ctx, a, b, splice.Options{Idle: time.Minute, Forward: ignore, Backward: ignore})
	}()
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	_, err := client.Read(make([]byte, 1))
	require.Error(t, err)
}

// descriptors counts the open files of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("open files cannot be counted here:", err)
	}
	return len(open)
}

func TestAnOpenPairHoldsItsTwoSocketsOnly(t *testing.T) {
	const pairs = 50
	before := descriptors(t)
	for range pairs {
		j := join(t, true, splice.Options{})
		for _, way := range [][2]net.Conn{{j.client, j.server}, {j.server, j.client}} {
			_, err := way[0].Write([]byte("hello"))
			require.NoError(t, err)
			_, err = io.ReadFull(way[1], make([]byte, 5))
			require.NoError(t, err)
		}
	}
	// The test holds the far ends.
	require.LessOrEqual(t, descriptors(t)-before, pairs*4+4, "two sockets for each pair, beside the test's own two")
}

func TestAnEndThatHasClosedDoesNotPinThePair(t *testing.T) {
	both(t, func(t *testing.T, tcp bool) {
		j := join(t, tcp, splice.Options{HalfClosed: 200 * time.Millisecond})
		require.NoError(t, j.client.Close())
		// The server says nothing and does not close: nobody could tell it from one that is still
		// at work.
		require.ErrorIs(t, j.wait(t), splice.ErrHalfClosed)
	})
}
