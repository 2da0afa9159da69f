package replicator_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	replicatorv1 "konsul.dev/proto/gen/konsul/replicator/v1"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	"konsul.dev/services/replicator"
	"konsul.dev/services/replicator/internal/registrytest"
)

const (
	east = "us-east"
	west = "us-west"

	patience = 10 * time.Second
)

// world is a primary in the east and a secondary in the west, without gateways in between.
type world struct {
	ca            *identitytest.CA
	primary, copy *registrytest.Registry
}

func record(primary string, epoch uint64) *federationv1.Federation {
	return &federationv1.Federation{Id: identitytest.FederationID, Epoch: epoch, PrimaryDatacenter: primary}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ca := identitytest.NewCA(t, identitytest.FederationID)
	return &world{
		ca:      ca,
		primary: registrytest.Start(t, ca.Source(east, "registry"), record(east, 1)),
		copy:    registrytest.Start(t, ca.Source(west, "registry"), record(east, 1)),
	}
}

// running is a started replicator with what a test looks at.
type running struct {
	*replicator.Service
	telemetry *obs.Telemetry
	status    replicatorv1.StatusServiceClient
	clock     *clock.Manual
}

// replicate starts a replicator in the west. Its lag is measured on a clock that stands still.
func (w *world) replicate(t *testing.T, change ...func(*replicator.Config)) *running {
	t.Helper()
	cfg := replicator.DefaultConfig()
	cfg.Server.Datacenter, cfg.Server.PrimaryDatacenter = west, east
	cfg.Server.DataDir, cfg.Server.SecretFile = t.TempDir(), "unused"
	cfg.Endpoints.Registry = []string{w.copy.Addr()}
	cfg.Endpoints.Gateway = []string{w.primary.Addr()}
	cfg.Replicator.Listen = "127.0.0.1:0"
	cfg.Replicator.Heartbeat = 100 * time.Millisecond
	cfg.Replicator.StreamTimeout = 400 * time.Millisecond
	cfg.Replicator.RetryMin, cfg.Replicator.RetryMax = 5*time.Millisecond, 50*time.Millisecond
	for _, c := range change {
		c(&cfg)
	}
	r := &running{telemetry: obs.Discard(), clock: clock.NewManual(time.Now())}
	var err error
	r.Service, err = replicator.New(cfg, konsulfx.Process{
		Telemetry: r.telemetry, Clock: r.clock, Identity: w.ca.Source(west, "replicator"),
		Fail: func(err error) { t.Errorf("a loop failed: %v", err) },
	})
	require.NoError(t, err)
	require.NoError(t, r.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, r.Stop(context.Background())) })
	conn, err := rpc.Dial([]string{r.Addr()}, rpc.ClientParams{
		Identity: w.ca.Source(west, "gateway"), Want: identity.Want{Service: "replicator"}, Telemetry: obs.Discard(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	r.status = replicatorv1.NewStatusServiceClient(conn)
	return r
}

// source returns the status of the only source.
func (r *running) source(t *testing.T) *replicatorv1.SourceStatus {
	t.Helper()
	resp, err := r.status.GetStatus(t.Context(), &replicatorv1.GetStatusRequest{})
	require.NoError(t, err)
	require.Equal(t, west, resp.GetDatacenter())
	if len(resp.GetSources()) == 0 {
		return nil
	}
	require.Len(t, resp.GetSources(), 1)
	return resp.GetSources()[0]
}

func (r *running) metric(t *testing.T, name string) float64 {
	t.Helper()
	families, err := r.telemetry.Metrics.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			total := 0.0
			for _, m := range f.GetMetric() {
				total += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
			return total
		}
	}
	return -1
}

func kv(key, value string) *federationv1.ReplicatedEntry {
	return &federationv1.ReplicatedEntry{Type: federationv1.ReplicatedEntry_KV, Key: "global/" + key, Value: []byte(value)}
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, patience, 5*time.Millisecond, what)
}

func TestCopiesWhatIsThereAndWhatComes(t *testing.T) {
	w := newWorld(t)
	w.primary.Commit(kv("a", "1"), kv("b", "2"))
	r := w.replicate(t)
	eventually(t, "first copy", func() bool { return w.copy.Rows() == 2 })

	w.primary.Commit(kv("a", "3"))
	eventually(t, "change", func() bool { return w.copy.Value("global/a") == "3" })
	gone := kv("b", "")
	gone.Deleted = true
	w.primary.Commit(gone)
	eventually(t, "deletion", func() bool { return w.copy.Rows() == 1 })
	eventually(t, "cursor", func() bool { return w.copy.Cursor(east) == 4 })

	s := r.source(t)
	require.True(t, s.GetConnected())
	require.Empty(t, s.GetError())
	require.Equal(t, east, s.GetSourceDatacenter())
	require.Equal(t, uint64(4), s.GetReplicatedIndex())
	require.Equal(t, uint64(4), s.GetSourceIndex())
	require.NoError(t, r.Ready(t.Context()))
	require.InDelta(t, 4, r.metric(t, "konsul_replicator_applied_entries_total"), 0)
	require.InDelta(t, 1, r.metric(t, "konsul_replicator_connected"), 0)
	problems, err := testutil.GatherAndLint(r.telemetry.Metrics)
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestPiecesMoveTheCursorOnlyTogether(t *testing.T) {
	w := newWorld(t)
	w.primary.Pieces(2)
	for i := range 7 {
		w.primary.Commit(kv(fmt.Sprint(i), "x"))
	}
	w.replicate(t, func(c *replicator.Config) { c.Replicator.BatchMax = 1 })
	eventually(t, "all copied", func() bool { return w.copy.Cursor(east) == 7 })
	require.Equal(t, 7, w.copy.Rows())
	applied := w.copy.Applied()
	require.Len(t, applied, 7)
	for _, a := range applied[:6] {
		require.Zero(t, a.GetCursor().GetIndex())
	}
}

func TestReconnectsWhenTheStreamEndsAndWhenThePrimaryReturns(t *testing.T) {
	w := newWorld(t)
	r := w.replicate(t)
	w.primary.Commit(kv("a", "1"))
	eventually(t, "copy", func() bool { return w.copy.Value("global/a") == "1" })

	w.primary.Cut()
	w.primary.Commit(kv("a", "2"))
	eventually(t, "copy after the stream was ended", func() bool { return w.copy.Value("global/a") == "2" })

	w.primary.Down()
	eventually(t, "loss is noticed", func() bool { return !r.source(t).GetConnected() })
	require.NotEmpty(t, r.source(t).GetError())
	require.NoError(t, r.Ready(t.Context()), "a datacenter stands alone")
	require.InDelta(t, 0, r.metric(t, "konsul_replicator_connected"), 0)
	w.primary.Commit(kv("a", "3"))
	w.primary.Serve(t)
	eventually(t, "copy after the primary returned", func() bool { return w.copy.Value("global/a") == "3" })
	requests := w.primary.Requests()
	require.Equal(t, int64(2), requests[len(requests)-1].GetLastReplicatedIndex(), "goes on from the stored cursor")
}

func TestSilenceIsNoticedAndLagGrows(t *testing.T) {
	w := newWorld(t)
	r := w.replicate(t)
	w.primary.Commit(kv("a", "1"))
	eventually(t, "connected", func() bool { return r.source(t).GetConnected() })

	w.primary.Mute(true)
	before := len(w.primary.Requests())
	r.clock.Advance(65 * time.Second)
	eventually(t, "watchdog opens a new stream", func() bool { return len(w.primary.Requests()) > before })
	eventually(t, "reported", func() bool { return !r.source(t).GetConnected() })
	require.Contains(t, r.source(t).GetError(), "said nothing")
	require.Equal(t, 65*time.Second, r.source(t).GetLag().AsDuration())

	w.primary.Mute(false)
	eventually(t, "lag falls", func() bool { return r.source(t).GetLag().AsDuration() == 0 })
}

func TestLagIsKnownBeforeAnybodyAnswers(t *testing.T) {
	w := newWorld(t)
	w.copy.Down()
	r := w.replicate(t)
	r.clock.Advance(3 * time.Second)
	require.Equal(t, 3*time.Second, r.source(t).GetLag().AsDuration())
	require.Error(t, r.Ready(t.Context()))
}

func TestLostRaceReadsTheCursorAgain(t *testing.T) {
	w := newWorld(t)
	for i := range 5 {
		w.primary.Commit(kv(fmt.Sprint(i), "x"))
	}
	r := w.replicate(t)
	eventually(t, "copied", func() bool { return w.copy.Cursor(east) == 5 })
	w.copy.SetCursor(east, 3, 1)
	w.primary.Commit(kv("late", "x"))
	eventually(t, "copied again", func() bool { return w.copy.Cursor(east) == 6 })
	requests := w.primary.Requests()
	require.Equal(t, int64(3), requests[len(requests)-1].GetLastReplicatedIndex())
	require.InDelta(t, 1, r.metric(t, "konsul_replicator_failures_total"), 0)
}

func TestAServerThatLagsIsAskedAgain(t *testing.T) {
	w := newWorld(t)
	r := w.replicate(t)
	eventually(t, "connected", func() bool { return r.source(t).GetConnected() })
	w.copy.Lag(3)
	w.primary.Commit(kv("a", "1"))
	eventually(t, "copied", func() bool { return w.copy.Value("global/a") == "1" })
	require.Len(t, w.primary.Requests(), 1, "on the same stream")
	require.True(t, r.source(t).GetConnected())
}

func TestTwoReplicatorsTakeTurns(t *testing.T) {
	w := newWorld(t)
	w.replicate(t)
	w.replicate(t)
	for i := range 100 {
		w.primary.Commit(kv(fmt.Sprint(i%10), fmt.Sprint(i)))
	}
	eventually(t, "all copied", func() bool { return w.copy.Cursor(east) == 100 })
	require.Equal(t, "99", w.copy.Value("global/9"))
	var last uint64
	for _, a := range w.copy.Applied() {
		require.GreaterOrEqual(t, a.GetCursor().GetIndex(), last)
		last = a.GetCursor().GetIndex()
	}
}

func TestRefusedSourcesKeepTheCopies(t *testing.T) {
	for name, c := range map[string]struct {
		spoil  func(*world)
		reason string
	}{
		"older epoch": {func(w *world) { w.copy.SetRecord(record(east, 2)) }, "only at epoch 1"},
		"older epoch, served nevertheless": {func(w *world) {
			w.primary.Unaware()
			w.copy.SetRecord(record(east, 2))
		}, "epoch 2 has begun"},
		"stored epoch, served nevertheless": {func(w *world) {
			w.primary.Unaware()
			w.copy.SetCursor(east, 1, 7)
		}, "epoch 7 has begun"},
		"rebuilt source":   {func(w *world) { w.copy.SetCursor(east, 100, 1) }, "only at 1"},
		"other federation": {func(w *world) { w.copy.SetRecord(&federationv1.Federation{Id: "x", Epoch: 1, PrimaryDatacenter: east}) }, "belongs to federation x"},
		"no primary":       {func(w *world) { w.primary.SetRecord(record(west, 1)) }, "is no primary"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.primary.Commit(kv("a", "1"))
			first := w.replicate(t)
			eventually(t, "copied", func() bool { return w.copy.Cursor(east) == 1 })
			require.NoError(t, first.Stop(t.Context()))

			c.spoil(w)
			cursor := w.copy.Cursor(east)
			w.primary.Commit()
			r := w.replicate(t)
			eventually(t, "refused", func() bool {
				s := r.source(t)
				return !s.GetConnected() && s.GetError() != "" && s.GetError() != "not connected yet"
			})
			require.Contains(t, r.source(t).GetError(), c.reason)
			require.Equal(t, "1", w.copy.Value("global/a"))
			require.Equal(t, cursor, w.copy.Cursor(east))
		})
	}
}

func TestIdleSourcesCursorIsStoredNowAndThen(t *testing.T) {
	w := newWorld(t)
	r := w.replicate(t)
	eventually(t, "connected", func() bool { return r.source(t).GetConnected() })
	w.primary.Touch()
	eventually(t, "known", func() bool { return r.source(t).GetReplicatedIndex() == 1 })
	require.Zero(t, w.copy.Cursor(east))
	r.clock.Advance(31 * time.Second)
	eventually(t, "stored", func() bool { return w.copy.Cursor(east) == 1 })
}

func TestFollowsAChangeOfPrimary(t *testing.T) {
	w := newWorld(t)
	r := w.replicate(t)
	w.primary.Commit(kv("a", "1"))
	eventually(t, "copied", func() bool { return w.copy.Cursor(east) == 1 })

	w.copy.SetRecord(record(west, 2))
	r.clock.Advance(time.Minute)
	eventually(t, "the primary copies from nobody", func() bool { return r.source(t) == nil })
	require.InDelta(t, -1, r.metric(t, "konsul_replicator_connected"), 0)

	w.primary.SetRecord(record(east, 3))
	w.copy.SetRecord(record(east, 3))
	w.primary.Commit(kv("a", "2"))
	advance := func() bool { r.clock.Advance(time.Minute); return w.copy.Value("global/a") == "2" }
	eventually(t, "follows again", advance)
}

func TestOnlyTheOwnDatacenterMayAsk(t *testing.T) {
	w := newWorld(t)
	r := w.replicate(t)
	conn, err := rpc.Dial([]string{r.Addr()}, rpc.ClientParams{
		Identity: w.ca.Source(east, "gateway"), Want: identity.Want{Service: "replicator", Datacenter: west}, Telemetry: obs.Discard(),
	})
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = replicatorv1.NewStatusServiceClient(conn).GetStatus(t.Context(), &replicatorv1.GetStatusRequest{})
	require.ErrorContains(t, err, "may not call")
}
