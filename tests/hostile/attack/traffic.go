package attack

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// trafficTimeout bounds one call of good traffic.
const trafficTimeout = 10 * time.Second

// Served is how good traffic fared.
type Served struct {
	Calls, Failed int
	// Slowest is how long the slowest call took.
	Slowest time.Duration
	// Last is the error of the last call that failed; nil when none did.
	Last error
}

// String returns how it fared, for the log of a test.
func (s Served) String() string {
	return fmt.Sprintf("%d good calls, %d failed, the slowest in %s", s.Calls, s.Failed, s.Slowest.Round(time.Millisecond))
}

// GoodTraffic calls do again and again, every interval, until stop is called, which answers how it
// fared and logs it. One call is made before GoodTraffic returns, so what is attacked serves when
// the attack begins: a failure of that one fails the test.
func GoodTraffic(t *testing.T, every time.Duration, do func(context.Context) error) (stop func() Served) {
	t.Helper()
	var served Served
	call := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), trafficTimeout)
		defer cancel()
		start := time.Now()
		err := do(ctx)
		served.Calls++
		served.Slowest = max(served.Slowest, time.Since(start))
		if err != nil {
			served.Failed++
			served.Last = err
		}
		return err
	}
	if err := call(); err != nil {
		t.Fatalf("good traffic is not served before the attack: %v", err)
	}
	done := make(chan struct{})
	var calling sync.WaitGroup
	calling.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				_ = call() // It is in served.
			}
		}
	})
	finish := sync.OnceValue(func() Served {
		t.Helper()
		close(done)
		calling.Wait()
		t.Log(served)
		return served
	})
	t.Cleanup(func() { finish() })
	return finish
}
