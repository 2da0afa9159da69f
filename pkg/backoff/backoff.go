// Package backoff spaces out retries so that a crowd of clients does not come back at once.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff grows exponentially with full jitter (M. Brooker, "Exponential Backoff and Jitter", AWS
// Architecture Blog, 2015), from a floor that keeps a tight loop away. It is not safe for
// concurrent use: each loop has its own.
type Backoff struct {
	floor, ceiling, current time.Duration
}

// New returns a backoff whose waits are drawn from [min/2, d] with d doubling from min to max.
func New(floor, ceiling time.Duration) *Backoff {
	if floor <= 0 {
		floor = time.Millisecond
	}
	return &Backoff{floor: floor, ceiling: max(floor, ceiling), current: floor}
}

// Next returns how long to wait before the next try, and grows.
func (b *Backoff) Next() time.Duration {
	least := b.floor / 2
	wait := least + rand.N(b.current-least+1)
	b.current = min(b.current*2, b.ceiling)
	return wait
}

// Reset starts again from the floor; call it after a success.
func (b *Backoff) Reset() { b.current = b.floor }

// Wait waits for Next, or until ctx ends, and then answers why it ended.
func (b *Backoff) Wait(ctx context.Context) error {
	timer := time.NewTimer(b.Next())
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
