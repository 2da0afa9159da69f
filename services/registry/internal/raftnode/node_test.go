package raftnode

import (
	"context"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/pkg/konsultest"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/badgerstore"
	"konsul.dev/services/registry/internal/fsm"
)

// stubborn is a sink that holds the state machine up.
type stubborn struct{ until chan struct{} }

func (s stubborn) Committed(uint64, []*registryv1.Record) error {
	<-s.until
	return nil
}

func (stubborn) Restored() error { return nil }

func startNode(t *testing.T, dir string, sink Sink) (*Node, error) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	store, err := badgerstore.Open(badgerstore.DefaultOptions(t.TempDir(), log))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	metrics := NewMetrics(prometheus.NewRegistry())
	address := konsultest.FreeAddress(t)
	return Start(Params{
		Config: Config{
			ID: "n1", Listen: address, Advertise: address, Dir: dir, Timing: DefaultTiming(), SnapshotEvery: 1 << 20,
			SnapshotBytes: 1 << 30, TrailingBytes: 1 << 20, SegmentBytes: 1 << 20, MaxInFlight: 16, MaxInFlightBytes: 1 << 20,
		},
		Store: store, Machine: fsm.New(), Sink: sink, Identity: identitytest.NewCA(t, identitytest.FederationID).Source("dc1", "registry"),
		Metrics: metrics, Log: log, Fatal: func(error) {}, Admit: func(uint32) error { return nil },
		Stamp: func() (time.Time, uint64) { return time.Unix(1, 0), 1 },
	})
}

func TestAFolderHasOneServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := startNode(t, dir, &recorder{})
	require.NoError(t, err)
	start := time.Now()
	_, err = startNode(t, dir, &recorder{})
	require.Equal(t, ReasonFolderInUse, fault.ReasonOf(err))
	require.Less(t, time.Since(start), 2*lockWait)
	require.NoError(t, first.Stop(t.Context()))
	again, err := startNode(t, dir, &recorder{})
	require.NoError(t, err, "the first gave it back")
	require.Equal(t, first.Disk(), again.Disk())
	require.NoError(t, again.Stop(t.Context()))
}

func TestAServerWhoseLoopIsStuckStopsAllTheSame(t *testing.T) {
	t.Parallel()
	dir, sink := t.TempDir(), stubborn{make(chan struct{})}
	n, err := startNode(t, dir, sink)
	require.NoError(t, err)
	require.True(t, n.Fresh())
	n.Open()
	require.NoError(t, n.Found([]Server{{ID: "n1", Address: n.config.Advertise, Voter: true}}))
	require.Eventually(t, n.IsLeader, 10*time.Second, 5*time.Millisecond)
	require.False(t, n.Fresh())
	require.Error(t, n.Found([]Server{{ID: "n1", Address: n.config.Advertise, Voter: true}}), "a cluster is founded once")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = n.Propose(ctx, &registryv1.Command{Operations: []*registryv1.Operation{{Op: &registryv1.Operation_Put{
		Put: &registryv1.Record{Table: registryv1.Table_TABLE_KV, Key: "k"},
	}}}})
	require.Equal(t, fault.ReasonOutcomeUnknown, fault.ReasonOf(err))
	n.patience = 200 * time.Millisecond
	err = n.Stop(t.Context())
	require.Equal(t, ReasonStuck, fault.ReasonOf(err))
	_, err = startNode(t, dir, &recorder{})
	require.Equal(t, ReasonFolderInUse, fault.ReasonOf(err), "its loop may still write there")
	close(sink.until)
}

func TestStrangersAtTheRaftPortHoldNothingForLong(t *testing.T) {
	t.Parallel()
	n, err := startNode(t, t.TempDir(), &recorder{})
	require.NoError(t, err)
	defer func() { require.NoError(t, n.Stop(t.Context())) }()
	n.Open()
	crowd := make([]net.Conn, maxGreetings+10)
	for i := range crowd {
		crowd[i], err = net.Dial("tcp", n.network.Listener.Addr().String())
		require.NoError(t, err)
		defer func() { _ = crowd[i].Close() }()
	}
	require.Eventually(t, func() bool {
		return testutil.ToFloat64(n.metrics.refused.WithLabelValues("half_open_evicted")) >= float64(len(crowd)-maxGreetingsOfOne)
	}, networkTimeout, 5*time.Millisecond, "one address has few")
	start := time.Now()
	for i, conn := range crowd {
		require.NoError(t, conn.SetReadDeadline(start.Add(4*networkTimeout)))
		_, err := conn.Read(make([]byte, 1))
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "connection %d says nothing and stays", i)
	}
}
