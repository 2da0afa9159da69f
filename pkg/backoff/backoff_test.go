package backoff_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"konsul.dev/pkg/backoff"
)

func TestNextStaysWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		floor := time.Duration(rapid.Int64Range(1, int64(time.Second)).Draw(t, "floor"))
		ceiling := floor * time.Duration(rapid.Int64Range(1, 100).Draw(t, "factor"))
		b := backoff.New(floor, ceiling)
		for range 20 {
			wait := b.Next()
			require.GreaterOrEqual(t, wait, floor/2)
			require.LessOrEqual(t, wait, ceiling)
		}
		b.Reset()
		require.LessOrEqual(t, b.Next(), floor)
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, backoff.New(time.Hour, time.Hour).Wait(ctx), context.Canceled)
}
