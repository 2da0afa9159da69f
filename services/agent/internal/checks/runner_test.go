package checks_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/servicedef"
	"konsul.dev/services/agent/internal/checks"
	"konsul.dev/services/agent/internal/local"
)

const (
	passing  = registryv1.HealthStatus_HEALTH_STATUS_PASSING
	warning  = registryv1.HealthStatus_HEALTH_STATUS_WARNING
	critical = registryv1.HealthStatus_HEALTH_STATUS_CRITICAL
)

// log keeps what was observed.
type log struct {
	mu   sync.Mutex
	seen map[local.CheckKey][]local.Outcome
}

func (l *log) observe(key local.CheckKey, _ servicedef.Check, outcome local.Outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil {
		l.seen = map[local.CheckKey][]local.Outcome{}
	}
	l.seen[key] = append(l.seen[key], outcome)
}

func (l *log) of(check string) []local.Outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[key(check)]
}

func key(check string) local.CheckKey { return local.CheckKey{Service: "api", Check: check} }

func tcp(interval time.Duration) servicedef.Check {
	return servicedef.Check{ID: "x", TCP: "h:1", Interval: interval, Timeout: time.Second}
}

// pass lets the bubble's time pass.
func pass(d time.Duration) { <-time.After(d) }

func ok(context.Context, servicedef.Check) local.Outcome { return local.Outcome{Status: passing} }

func TestRunsSoonAndThenAboutEveryInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen log
		r := checks.NewRunner(ok, 4, seen.observe)
		defer r.Stop()
		r.Set(map[local.CheckKey]servicedef.Check{key("a"): tcp(10 * time.Second)})
		pass(time.Second)
		synctest.Wait()
		require.Len(t, seen.of("a"), 1)
		pass(100 * time.Second)
		synctest.Wait()
		require.InDelta(t, 11, len(seen.of("a")), 2)
	})
}

func TestSetLeavesUnchangedChecksAloneAndEndsRemovedOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen log
		r := checks.NewRunner(ok, 4, seen.observe)
		defer r.Stop()
		r.Set(map[local.CheckKey]servicedef.Check{key("stays"): tcp(time.Hour), key("goes"): tcp(time.Second), key("changes"): tcp(time.Hour)})
		pass(2 * time.Second)
		synctest.Wait()
		r.Set(map[local.CheckKey]servicedef.Check{key("stays"): tcp(time.Hour), key("changes"): tcp(2 * time.Hour)})
		gone := len(seen.of("goes"))
		pass(10 * time.Second)
		synctest.Wait()
		require.Len(t, seen.of("goes"), gone)
		require.Len(t, seen.of("stays"), 1)
		require.Len(t, seen.of("changes"), 2)
	})
}

func TestHangingProbeDelaysNoOtherAndProbesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen log
		var running, most atomic.Int32
		probe := func(ctx context.Context, c servicedef.Check) local.Outcome {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			if c.TCP == "hangs:1" {
				<-ctx.Done()
			} else {
				pass(10 * time.Millisecond)
			}
			return local.Outcome{Status: passing}
		}
		r := checks.NewRunner(probe, 2, seen.observe)
		hangs := tcp(time.Second)
		hangs.TCP = "hangs:1"
		set := map[local.CheckKey]servicedef.Check{key("hangs"): hangs}
		for _, name := range []string{"a", "b", "c", "d"} {
			set[key(name)] = tcp(time.Second)
		}
		r.Set(set)
		pass(10 * time.Second)
		for _, name := range []string{"a", "b", "c", "d"} {
			require.Greater(t, len(seen.of(name)), 7, name)
		}
		require.LessOrEqual(t, most.Load(), int32(2))
		r.Stop()
		require.Empty(t, seen.of("hangs"), "what a stop interrupts is no outcome")
		r.Set(set)
	})
}

func TestTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen log
		r := checks.NewRunner(ok, 1, seen.observe)
		defer r.Stop()
		r.Set(map[local.CheckKey]servicedef.Check{key("ttl"): {ID: "ttl", TTL: 10 * time.Second}, key("tcp"): tcp(time.Hour)})
		for range 3 {
			pass(9 * time.Second)
			require.NoError(t, r.Report(t.Context(), key("ttl"), local.Outcome{Status: warning, Output: "full\ndisk"}))
		}
		synctest.Wait()
		require.Equal(t, []local.Outcome{{Status: warning, Output: "full disk"}, {Status: warning, Output: "full disk"}, {Status: warning, Output: "full disk"}}, seen.of("ttl"))
		pass(11 * time.Second)
		synctest.Wait()
		require.Equal(t, critical, seen.of("ttl")[3].Status)
		pass(time.Hour)
		synctest.Wait()
		require.Len(t, seen.of("ttl"), 4, "it expires once")

		require.Equal(t, fault.NotFound, fault.CodeOf(r.Report(t.Context(), key("tcp"), local.Outcome{})))
		require.Equal(t, fault.NotFound, fault.CodeOf(r.Report(t.Context(), key("none"), local.Outcome{})))
	})
}
