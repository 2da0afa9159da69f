package quota_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	"konsul.dev/services/registry/internal/quota"
)

type fixture struct {
	*quota.Quotas
	clock    *clock.Manual
	registry *prometheus.Registry
	leases   map[string]int
}

func open(t *testing.T, limits quota.Limits) fixture {
	t.Helper()
	f := fixture{clock: clock.NewManual(time.Unix(100, 0)), registry: prometheus.NewRegistry(), leases: map[string]int{}}
	f.Quotas = quota.New(limits, f.clock, func(holder string) int { return f.leases[holder] }, f.registry)
	return f
}

// requireRefused fails unless an error is a refusal for a limit: with a reason, a delay and a
// setting that exists.
func requireRefused(t *testing.T, err error, reason, setting string) {
	t.Helper()
	f, ok := fault.As(err)
	require.True(t, ok, err)
	require.Equal(t, fault.ResourceExhausted, f.Code())
	require.Equal(t, reason, f.Reason())
	require.Positive(t, f.RetryAfter())
	require.Contains(t, f.Remedy(), setting)
}

func TestAHolderHasNoMoreThanItMay(t *testing.T) {
	for name, c := range map[string]struct {
		limits          quota.Limits
		take            func(q *quota.Quotas, holder string) (func(), error)
		reason, setting string
	}{
		"watches":       {quota.Limits{Watches: 2}, (*quota.Quotas).Watch, quota.ReasonWatches, "registry.limits.watches_per_token"},
		"blocked reads": {quota.Limits{BlockedReads: 2}, (*quota.Quotas).BlockedRead, quota.ReasonBlockedReads, "registry.limits.blocked_reads_per_token"},
	} {
		t.Run(name, func(t *testing.T) {
			q := open(t, c.limits)
			first, err := c.take(q.Quotas, "a")
			require.NoError(t, err)
			_, err = c.take(q.Quotas, "a")
			require.NoError(t, err)
			_, err = c.take(q.Quotas, "a")
			requireRefused(t, err, c.reason, c.setting)
			_, err = c.take(q.Quotas, "b")
			require.NoError(t, err, "another token")
			for range 10 {
				_, err = c.take(q.Quotas, "")
				require.NoError(t, err, "a service that acts as itself")
			}
			first()
			_, err = c.take(q.Quotas, "a")
			require.NoError(t, err, "what was given back may be had again")
		})
	}
}

func TestRates(t *testing.T) {
	q := open(t, quota.Limits{RequestsPerSecond: 10, LeasesPerSecond: 1, Leases: 5})
	for range 20 {
		require.NoError(t, q.Request("a"))
	}
	requireRefused(t, q.Request("a"), quota.ReasonRate, "registry.limits.requests_per_second")
	require.NoError(t, q.Request("b"))
	q.clock.Advance(100 * time.Millisecond)
	require.NoError(t, q.Request("a"), "a refused call costs nothing")
	require.Error(t, q.Request("a"))

	require.NoError(t, q.Lease("a"))
	require.NoError(t, q.Lease("a"))
	requireRefused(t, q.Lease("a"), quota.ReasonLeaseRate, "registry.limits.leases_per_second")
	q.clock.Advance(time.Second)
	q.leases["a"] = 5
	requireRefused(t, q.Lease("a"), quota.ReasonLeases, "registry.limits.leases_per_token")
	q.leases["a"] = 4
	require.NoError(t, q.Lease("a"))
	require.NoError(t, testutil.GatherAndCompare(q.registry, strings.NewReader(`
# HELP konsul_registry_limited_total Calls that were refused because their token has or asks too much, by what was limited.
# TYPE konsul_registry_limited_total counter
konsul_registry_limited_total{kind="blocked_read"} 0
konsul_registry_limited_total{kind="lease"} 1
konsul_registry_limited_total{kind="lease_rate"} 1
konsul_registry_limited_total{kind="request"} 2
konsul_registry_limited_total{kind="watch"} 0
`), "konsul_registry_limited_total"))
}

func TestZeroIsNoLimit(t *testing.T) {
	q := open(t, quota.Limits{})
	q.leases["a"] = 1_000_000
	for range 1000 {
		_, err := q.Watch("a")
		require.NoError(t, err)
		_, err = q.BlockedRead("a")
		require.NoError(t, err)
		require.NoError(t, q.Lease("a"))
		require.NoError(t, q.Request("a"))
	}
}

// TestARateOutlivesACrowd asks as more holders than are remembered: who asks too fast is remembered
// before those who are quiet.
func TestARateOutlivesACrowd(t *testing.T) {
	q := open(t, quota.Limits{RequestsPerSecond: 1})
	const crowd = 10_000
	for i := range crowd - 1 {
		require.NoError(t, q.Request(fmt.Sprint("quiet ", i)))
	}
	q.clock.Advance(time.Minute)
	require.NoError(t, q.Request("busy"))
	require.NoError(t, q.Request("busy"))
	require.NoError(t, q.Request("one more"))
	require.Error(t, q.Request("busy"))
}
