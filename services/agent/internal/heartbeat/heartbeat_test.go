package heartbeat_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"konsul.dev/services/agent/internal/heartbeat"
)

const (
	ttl   = 30 * time.Second
	third = ttl / 3
	least = third - third/10
)

// registry notes when it hears of the node and answers as it is told.
type registry struct {
	beats  []time.Time
	answer func(ctx context.Context) (bool, error)
}

func (r *registry) Heartbeat(ctx context.Context, node string) (bool, error) {
	if node != "n1" {
		return false, errors.New("another node")
	}
	r.beats = append(r.beats, time.Now())
	if r.answer == nil {
		return true, nil
	}
	return r.answer(ctx)
}

// gaps are the times between beats from the nth on.
func (r *registry) gaps(from int) []time.Duration {
	var gaps []time.Duration
	for i := from + 1; i < len(r.beats); i++ {
		gaps = append(gaps, r.beats[i].Sub(r.beats[i-1]))
	}
	return gaps
}

// beating runs a heart for so long, after first has seen it, and returns its metrics.
func beating(t *testing.T, r *registry, span time.Duration, unexpected func(), first func(*heartbeat.Heart)) *prometheus.Registry {
	t.Helper()
	counts := prometheus.NewRegistry()
	metrics, err := heartbeat.NewMetrics(counts)
	require.NoError(t, err)
	heart := heartbeat.New(heartbeat.Params{
		Registry: r, Node: "n1", TTL: ttl, CallTimeout: time.Minute, RetryMin: 100 * time.Millisecond, RetryMax: time.Hour,
		Unexpected: unexpected, Log: slog.New(slog.DiscardHandler), Metrics: metrics,
	})
	if first != nil {
		first(heart)
	}
	ctx, cancel := context.WithTimeout(t.Context(), span)
	defer cancel()
	require.NoError(t, heart.Run(ctx))
	return counts
}

func count(t *testing.T, counts *prometheus.Registry, result string) int {
	t.Helper()
	families, err := counts.Gather()
	require.NoError(t, err)
	for _, m := range families[0].GetMetric() {
		if m.GetLabel()[0].GetValue() == result {
			return int(m.GetCounter().GetValue())
		}
	}
	t.Fatalf("no result %q", result)
	return 0
}

func TestBeatsEveryThirdOfTheTTLWithJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, started := &registry{}, time.Now()
		counts := beating(t, r, 20*ttl, nil, nil)
		require.GreaterOrEqual(t, len(r.beats), 59)
		require.LessOrEqual(t, r.beats[0].Sub(started), third)
		different := map[time.Duration]bool{}
		for _, gap := range r.gaps(0) {
			require.GreaterOrEqual(t, gap, least)
			require.LessOrEqual(t, gap, third)
			different[gap] = true
		}
		require.Greater(t, len(different), 1, "a crowd of agents must not stay together")
		require.Equal(t, len(r.beats), count(t, counts, "ok"))
		problems, err := testutil.GatherAndLint(counts)
		require.NoError(t, err)
		require.Empty(t, problems)
	})
}

func TestAFailureIsTriedAgainSoonerAndNeverLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &registry{answer: func(context.Context) (bool, error) { return true, errors.New("away") }}
		counts := beating(t, r, 20*ttl, nil, nil)
		gaps := r.gaps(0)
		require.LessOrEqual(t, gaps[0], 100*time.Millisecond)
		for _, gap := range gaps {
			require.LessOrEqual(t, gap, third)
		}
		require.Less(t, len(gaps), 300, "backoff keeps a tight loop away")
		require.Equal(t, len(r.beats), count(t, counts, "failed"))
	})
}

func TestABeatThatHangsLeavesTimeForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &registry{answer: func(ctx context.Context) (bool, error) {
			<-ctx.Done()
			return false, ctx.Err()
		}}
		beating(t, r, ttl, nil, (*heartbeat.Heart).Beat)
		require.GreaterOrEqual(t, len(r.beats), 2)
		require.LessOrEqual(t, r.gaps(0)[0], third+100*time.Millisecond)
	})
}

func TestARegistryThatExpectsNoHeartbeatsIsReportedWithoutAStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		var heart *heartbeat.Heart
		r := &registry{answer: func(context.Context) (bool, error) { return false, nil }}
		counts := beating(t, r, 20*ttl, func() {
			told++
			heart.Beat() // as a registration that does not help does
		}, func(h *heartbeat.Heart) { heart = h })
		require.Equal(t, len(r.beats), told)
		require.Equal(t, told, count(t, counts, "unexpected"))
		require.Less(t, told, 200)
	})
}

func TestBeatIsSentAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, started := &registry{}, time.Now()
		beating(t, r, third/2, nil, (*heartbeat.Heart).Beat)
		require.Equal(t, []time.Time{started}, r.beats)
	})
}
