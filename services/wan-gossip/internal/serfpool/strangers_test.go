package serfpool_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"konsul.dev/services/wan-gossip/internal/members"
	"konsul.dev/services/wan-gossip/internal/serfpool"
)

// journal is a log that can be read while it is written.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) lines(part string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.text.String(), part)
}

// observed opens a pool whose metrics and log can be read.
func observed(t *testing.T, bounds serfpool.Limits) (*serfpool.Pool, *prometheus.Registry, *journal) {
	t.Helper()
	registry, log, me := prometheus.NewRegistry(), &journal{}, self("us-east")
	timing := fast()
	timing.StreamTimeout = time.Minute
	pool, err := serfpool.Open(serfpool.Config{
		Self: me, BindIP: "127.0.0.1", Keys: [][]byte{key(1)}, Admit: me.Admit, Timing: timing,
		Limits: bounds, Metrics: metrics(t, registry), Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = pool.Run(ctx, func([]members.Member) {})
	}()
	t.Cleanup(func() {
		require.NoError(t, pool.Shutdown())
		cancel()
		<-done
	})
	return pool, registry, log
}

func counted(t *testing.T, registry *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetCounter().GetValue()
			}
		}
	}
	require.Fail(t, "no metric", name)
	return 0
}

// announce says that an encrypted exchange of so many bytes follows.
func announce(t *testing.T, address string, size uint32) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	const encrypted = 10 // memberlist's encryptMsg
	_, err = conn.Write(binary.BigEndian.AppendUint32([]byte{encrypted}, size))
	require.NoError(t, err)
	return conn
}

func TestStrangersStreamsAreBounded(t *testing.T) {
	east, registry, log := observed(t, serfpool.Limits{Streams: 6, StreamsPerSource: 4, StreamBytes: 100 << 10})
	held := make([]net.Conn, 20)
	for i := range held {
		held[i] = announce(t, east.Addr(), 20<<20)
	}
	eventually(t, "the oldest are closed", func() bool {
		return counted(t, registry, "konsul_wan_gossip_streams_refused_total", "half_open_evicted") == 16
	})
	require.NoError(t, held[0].SetReadDeadline(time.Now().Add(patience)))
	_, err := held[0].Read(make([]byte, 1))
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)

	_, _ = held[len(held)-1].Write(make([]byte, 200<<10)) // cut in the middle
	eventually(t, "a stream is cut at its bound", func() bool {
		return counted(t, registry, "konsul_wan_gossip_streams_refused_total", "too_many_bytes") == 1
	})

	west := open(t, self("us-west"), key(1), 0)
	require.NoError(t, west.Join(east.Addr()), "a member comes in meanwhile")
	eventually(t, "both ways", func() bool { return west.status("n1.us-east") == members.Alive })
	require.LessOrEqual(t, log.lines("\n"), 30)
}

func TestJunkPacketsAreCountedAndFewAreLogged(t *testing.T) {
	east, registry, log := observed(t, limits())
	conn, err := net.Dial("udp", east.Addr())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	const warnings = "konsul_wan_gossip_library_warnings_total"
	eventually(t, "junk arrives", func() bool {
		for range 100 {
			_, err := conn.Write(bytes.Repeat([]byte{1}, 64))
			require.NoError(t, err)
		}
		return counted(t, registry, warnings, "") >= 1000
	})
	require.LessOrEqual(t, log.lines("Decrypt packet failed"), 10, "five a minute")
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	require.Empty(t, problems)

	west := open(t, self("us-west"), key(1), 0)
	require.NoError(t, west.Join(east.Addr()))
	eventually(t, "gossip goes on", func() bool { return west.status("n1.us-east") == members.Alive })
}
