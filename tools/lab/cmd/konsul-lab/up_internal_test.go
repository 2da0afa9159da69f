package main

import (
	"context"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAHangUpReloadsUnlessTheTerminalHasGone(t *testing.T) {
	for name, c := range map[string]struct {
		terminal []bool
		stops    bool
	}{
		"asked for at a terminal": {[]bool{true, true}, false},
		"never had a terminal":    {[]bool{false, false}, false},
		"the terminal has gone":   {[]bool{true, false}, true},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			asked := 0
			reload := hangups(ctx, stop, func() bool { asked++; return c.terminal[asked-1] })
			require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
			select {
			case <-reload:
				require.False(t, c.stops)
			case <-ctx.Done():
				require.True(t, c.stops)
			}
		})
	}
}
