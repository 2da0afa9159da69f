package lease_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/clock"
	"konsul.dev/services/registry/internal/lease"
)

// follow runs an expirer inside a synctest bubble and returns what has expired so far.
func follow(t *testing.T, e *lease.Expirer, failures int) (expired func() []string) {
	var mu sync.Mutex
	var seen []string
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- e.Run(ctx, func(_ context.Context, keys []string) error {
			mu.Lock()
			defer mu.Unlock()
			if failures > 0 {
				failures--
				return errors.New("no leader")
			}
			seen = append(seen, slices.Sorted(slices.Values(keys))...)
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return func() []string {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(seen)
	}
}

// pass lets the bubble's time go on.
func pass(d time.Duration) { <-time.After(d) }

func TestWhatIsRenewedLivesAndTheRestExpiresOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := lease.NewExpirer(clock.System())
		expired := follow(t, e, 0)
		e.Set("a", 10*time.Second)
		e.Set("b", 10*time.Second)
		e.Set("c", 10*time.Second)
		for range 5 {
			pass(6 * time.Second)
			require.True(t, e.Renew("a"))
			e.Remove("c")
		}
		require.Equal(t, []string{"b"}, expired())
		require.False(t, e.Renew("b"))
		require.False(t, e.Renew("c"))
		pass(11 * time.Second)
		require.Equal(t, []string{"b", "a"}, expired())
		require.False(t, e.Renew("a"))
	})
}

func TestAnEarlierDeadlineWakesTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := lease.NewExpirer(clock.System())
		expired := follow(t, e, 0)
		e.Set("late", time.Hour)
		require.Empty(t, expired())
		e.Set("soon", time.Second)
		pass(2 * time.Second)
		require.Equal(t, []string{"soon"}, expired())
		e.Set("late", time.Second)
		pass(2 * time.Second)
		require.Equal(t, []string{"soon", "late"}, expired())
	})
}

func TestANewLeaderGivesEveryDeadlineItsWholeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := lease.NewExpirer(clock.System())
		e.Set("gone", time.Second)
		e.Set("a", 10*time.Second)
		pass(time.Minute) // A follower keeps deadlines and lets none of them pass.
		e.Reset(map[string]time.Duration{"a": 10 * time.Second, "b": 20 * time.Second})
		expired := follow(t, e, 0)
		pass(9 * time.Second)
		require.Empty(t, expired())
		pass(2 * time.Second)
		require.Equal(t, []string{"a"}, expired())
		pass(10 * time.Second)
		require.Equal(t, []string{"a", "b"}, expired())
	})
}

func TestExpiryIsTriedUntilItSucceedsUnlessItIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := lease.NewExpirer(clock.System())
		expired := follow(t, e, 3)
		e.Set("a", time.Second)
		e.Set("b", time.Second)
		pass(time.Second + 5*time.Millisecond)
		require.True(t, e.Renew("b"), "it has not been made known that it expired")
		pass(900 * time.Millisecond)
		require.Equal(t, []string{"a"}, expired())
		pass(time.Second)
		require.Equal(t, []string{"a", "b"}, expired())
	})
}

func TestADeadlineSetWhileItExpiresIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := lease.NewExpirer(clock.System())
		ctx, cancel := context.WithCancel(t.Context())
		calls := 0
		e.Set("a", time.Second)
		require.NoError(t, e.Run(ctx, func(_ context.Context, keys []string) error {
			require.Equal(t, []string{"a"}, keys)
			if calls++; calls == 2 {
				cancel()
				return nil
			}
			pass(time.Millisecond)
			e.Set("a", time.Minute) // It came back while its end was being written.
			return nil
		}))
		require.Equal(t, 2, calls)
	})
}
