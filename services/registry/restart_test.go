package registry_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry"
	"konsul.dev/services/registry/registrytest"
)

// writer writes key after key, each until it is acknowledged, asking the next server after a
// failure.
type writer struct {
	name    string
	clients []*registrytest.Client
	written []string
	// longest is the longest time from the first try of a write to its acknowledgement.
	longest time.Duration
	err     error
}

func (w *writer) run(stop *atomic.Bool) {
	for i := 0; !stop.Load() && w.err == nil; i++ {
		key := fmt.Sprintf("%s/%d", w.name, i)
		begun := time.Now()
		w.err = w.write(key, i, begun)
		w.written, w.longest = append(w.written, key), max(w.longest, time.Since(begun))
	}
}

func (w *writer) write(key string, server int, begun time.Time) error {
	req := &registryv1.SetRequest{Key: key, Value: []byte(key), RequestId: uuid.NewString()}
	for {
		cl := w.clients[server%len(w.clients)]
		ctx, cancel := context.WithTimeout(cl.Ctx(), 2*time.Second)
		_, err := cl.KV.Set(ctx, req)
		cancel()
		switch code := fault.CodeOf(err); {
		case err == nil:
			return nil
		case code != fault.Unavailable && code != fault.Unknown && code != fault.DeadlineExceeded || time.Since(begun) > registrytest.Patience:
			return fmt.Errorf("write %s: %w", key, err)
		}
		server++
		<-time.After(5 * time.Millisecond)
	}
}

func TestServersRestartOneByOneUnderWrites(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	awaitVoters(t, c, c.Servers...)
	var stop atomic.Bool
	var running sync.WaitGroup
	writers := make([]*writer, 4)
	for i := range writers {
		w := &writer{name: fmt.Sprintf("w%d", i)}
		for _, s := range c.Servers {
			w.clients = append(w.clients, c.Client(s))
		}
		writers[i] = w
		running.Go(func() { w.run(&stop) })
	}
	// Followers first, the leader last, as the runbook says.
	leader := c.Leader()
	order := []*registrytest.Server{}
	for _, s := range c.Servers {
		if s != leader {
			order = append(order, s)
		}
	}
	for _, s := range append(order, leader) {
		s.Stop()
		s.Start()
		c.WaitReady()
		cl := c.Client(s)
		c.Eventually(func() error {
			state, err := cl.Operator.GetAutopilotState(cl.Ctx(), &registryv1.GetAutopilotStateRequest{})
			if err == nil && (!state.GetHealthy() || state.GetFailureTolerance() != 1) {
				err = fmt.Errorf("not healthy: %v", state)
			}
			return err
		})
	}
	stop.Store(true)
	running.Wait()
	acknowledged := 0
	for _, w := range writers {
		require.NoError(t, w.err)
		t.Logf("%s: %d writes, the slowest took %v", w.name, len(w.written), w.longest)
		require.Less(t, w.longest, 3*time.Second, "unavailable for too long")
		acknowledged += len(w.written)
	}
	for _, s := range c.Servers {
		got := rows(t, c.Client(s))
		require.Len(t, got, acknowledged)
	}
}

// lag makes a follower miss more than the log keeps, and returns it: the old keys are deleted,
// there are new ones, and the catalogue is another one.
func lag(t *testing.T, c *registrytest.Cluster, leave, back func(*registrytest.Server)) *registrytest.Server {
	t.Helper()
	lagging, leader := c.Follower(), c.Client(c.Leader())
	for i := range 30 {
		set(t, leader, fmt.Sprintf("old/%d", i), "v")
	}
	register(t, leader, "n1", "gone-1", "gone")
	c.Eventually(func() error {
		cl := c.Client(lagging)
		_, err := cl.KV.Get(cl.Ctx(), &registryv1.GetRequest{Key: "old/29", ReadMode: registryv1.ReadMode_READ_MODE_STALE})
		return err
	})
	leave(lagging)
	_, err := leader.KV.Delete(leader.Ctx(), &registryv1.DeleteRequest{Key: "old/", Recurse: true})
	require.NoError(t, err)
	_, err = leader.Catalog.Deregister(leader.Ctx(), &registryv1.DeregisterRequest{ServiceId: "gone-1"})
	require.NoError(t, err)
	register(t, leader, "n2", "api-1", "api")
	// The log answers what it has truncated as long as the segment is there: fill some.
	for i := range 40 {
		set(t, leader, fmt.Sprintf("new/%d", i), incompressible(128<<10))
	}
	for _, s := range c.Servers {
		if s != lagging {
			require.NoError(t, s.Snapshot())
		}
	}
	set(t, leader, "after", "v")
	back(lagging)
	return lagging
}

func incompressible(size int) string {
	value := make([]byte, size)
	_, _ = rand.Read(value) // It never fails.
	return string(value)
}

func sameAsTheLeader(t *testing.T, c *registrytest.Cluster, lagging *registrytest.Server) {
	t.Helper()
	cl := c.Client(lagging)
	c.Eventually(func() error {
		_, err := cl.KV.Get(cl.Ctx(), &registryv1.GetRequest{Key: "after", ReadMode: registryv1.ReadMode_READ_MODE_STALE})
		return err
	})
	require.Positive(t, restores(t, lagging), "it got the log, not the snapshot")
	stale, err := cl.KV.List(cl.Ctx(), &registryv1.ListRequest{KeysOnly: true, ReadMode: registryv1.ReadMode_READ_MODE_STALE})
	require.NoError(t, err)
	require.Len(t, stale.GetEntries(), 41)
	require.Equal(t, rows(t, c.Client(c.Leader())), rows(t, cl))
	services, err := cl.Catalog.ListServices(cl.Ctx(), &registryv1.ListServicesRequest{ReadMode: registryv1.ReadMode_READ_MODE_STALE})
	require.NoError(t, err)
	require.Len(t, services.GetServices(), 1)
	require.Equal(t, "api", services.GetServices()[0].GetName())
	who, err := cl.Tokens.IntrospectToken(cl.Bare(), &registryv1.IntrospectTokenRequest{Secret: registrytest.Token})
	require.NoError(t, err)
	require.True(t, who.GetManagement())
}

// restores returns how many snapshots a server has restored.
func restores(t *testing.T, s *registrytest.Server) uint64 {
	t.Helper()
	return uint64(metric(t, s, "konsul_registry_restore_duration_seconds"))
}

// metric returns what a server measures, of the series whose labels have these values: a
// histogram's count.
func metric(t *testing.T, s *registrytest.Server, name string, labels ...string) float64 {
	t.Helper()
	families, err := s.Telemetry.Metrics.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			values := []string{}
			for _, l := range m.GetLabel() {
				values = append(values, l.GetValue())
			}
			if f.GetName() == name && slices.Equal(values, append([]string{}, labels...)) {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return 0
}

func shortLog(cfg *registry.Config) {
	cfg.Registry.Raft.SnapshotThreshold, cfg.Registry.Raft.TrailingLogs, cfg.Registry.Raft.SegmentBytes = 1<<30, 1, 1<<20
}

func TestAFollowerThatWasDownGetsTheSnapshot(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, 3, registrytest.Options{Adjust: shortLog})
	lagging := lag(t, c, (*registrytest.Server).Kill, (*registrytest.Server).Start)
	sameAsTheLeader(t, c, lagging)
}

func TestAFollowerThatWasCutOffGetsTheSnapshotAndTellsItsWatchers(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, 3, registrytest.Options{Wired: true, Adjust: shortLog})
	lagging := lag(t, c, (*registrytest.Server).Cut, func(*registrytest.Server) {})
	watcher := c.Client(lagging)
	stream, err := watcher.Watch.Watch(watcher.Ctx(), &registryv1.WatchRequest{Table: registryv1.Table_TABLE_KV, Prefix: "local/"})
	require.NoError(t, err)
	for seen := 0; seen < 30; {
		m, err := stream.Recv()
		require.NoError(t, err)
		seen += len(m.GetRecords())
	}
	lagging.Heal()
	for {
		m, err := stream.Recv()
		require.NoError(t, err)
		if m.GetResync() {
			break
		}
		require.Empty(t, m.GetRecords(), "the watcher gets changes of a state that is no more")
	}
	sameAsTheLeader(t, c, lagging)
}

// TestAPausedSnapshotIsGivenUp lets a snapshot stop half-way with its connection open: the follower
// must not wait for ever, for meanwhile it has no vote.
func TestAPausedSnapshotIsGivenUp(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, 3, registrytest.Options{Wired: true, Adjust: shortLog})
	lagging := lag(t, c, (*registrytest.Server).Cut, func(s *registrytest.Server) {
		s.Stall(2 << 20)
		s.Heal()
	})
	registrytest.Throughout(t, time.Second, func() error {
		if n := restores(t, lagging); n > 0 {
			return fmt.Errorf("%d restores of a snapshot that was held up", n)
		}
		return nil
	})
	lagging.Stall(-1)
	sameAsTheLeader(t, c, lagging)
}
