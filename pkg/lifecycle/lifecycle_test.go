package lifecycle_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/lifecycle"
)

func TestAFailingLoopIsReportedOnce(t *testing.T) {
	reports := make(chan error, 8)
	g := lifecycle.NewGroup(slog.New(slog.DiscardHandler), func(err error) { reports <- err })
	broken := errors.New("broken")
	for range 4 {
		g.Go("loop", func(context.Context) error { return broken })
	}

	require.ErrorIs(t, <-reports, broken)
	require.NoError(t, g.Stop(t.Context()))
	require.Empty(t, reports)
}

func TestAPanicIsAFailure(t *testing.T) {
	reports := make(chan error, 1)
	g := lifecycle.NewGroup(slog.New(slog.DiscardHandler), func(err error) { reports <- err })
	g.Go("loop", func(context.Context) error { panic("boom") })
	require.ErrorContains(t, <-reports, "boom")
	require.NoError(t, g.Stop(t.Context()))
}

func TestStopIsNoFailure(t *testing.T) {
	reports := make(chan error, 1)
	g := lifecycle.NewGroup(slog.New(slog.DiscardHandler), func(err error) { reports <- err })
	g.Go("loop", func(ctx context.Context) error {
		<-ctx.Done()
		return errors.New("late complaint")
	})
	require.NoError(t, g.Stop(t.Context()))
	require.Empty(t, reports)
}
