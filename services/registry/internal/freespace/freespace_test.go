package freespace_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	"konsul.dev/services/registry/internal/freespace"
)

func guard(free *atomic.Uint64, log *bytes.Buffer) freespace.Guard {
	return freespace.Guard{
		Dir: "/data", Least: 100, Log: slog.New(slog.NewTextHandler(log, nil)),
		Free: func(string) (uint64, error) { return free.Load(), nil },
	}
}

func TestAStartWaitsForAQuarterMoreThanIsNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free atomic.Uint64
		var log bytes.Buffer
		free.Store(124)
		done := make(chan error, 1)
		go func() { done <- guard(&free, &log).Await(t.Context()) }()
		time.Sleep(90 * time.Second) // Virtual time.
		synctest.Wait()
		require.Empty(t, done)
		require.Equal(t, 2, strings.Count(log.String(), "waiting for room"), "one line a minute")
		free.Store(125)
		require.NoError(t, <-done)
	})
}

func TestAServerThatRunsOutOfRoomIsToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free atomic.Uint64
		free.Store(100)
		done := make(chan error, 1)
		go func() { done <- guard(&free, &bytes.Buffer{}).Run(t.Context()) }()
		time.Sleep(time.Hour) // Virtual time.
		synctest.Wait()
		require.Empty(t, done)
		free.Store(99)
		err := <-done
		require.Equal(t, freespace.ReasonDiskFull, fault.ReasonOf(err))
		require.ErrorContains(t, err, `"/data" has 99 bytes free, the registry needs 100`)
	})
}

func TestNobodyWaitsForEver(t *testing.T) {
	var free atomic.Uint64
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, freespace.ReasonDiskFull, fault.ReasonOf(guard(&free, &bytes.Buffer{}).Await(ctx)))
	require.NoError(t, freespace.Guard{}.Await(ctx), "a guard of nothing lets everybody in")
	require.NoError(t, freespace.Guard{}.Run(ctx))
	broken := guard(&free, &bytes.Buffer{})
	broken.Free = func(string) (uint64, error) { return 0, errors.New("no such folder") }
	require.ErrorContains(t, broken.Await(t.Context()), "no such folder")
}

func TestAvailable(t *testing.T) {
	free, err := freespace.Available(t.TempDir())
	require.NoError(t, err)
	require.Positive(t, free)
	_, err = freespace.Available("/no/such/folder")
	require.Error(t, err)
}
