package attack_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/tests/hostile/attack"
)

// TestMain is also the process that the tests watch: with HOSTILE_CHILD set it takes what its input
// says, and waits.
func TestMain(m *testing.M) {
	if os.Getenv("HOSTILE_CHILD") == "" {
		os.Exit(m.Run())
	}
	var next [1]byte
	var held [][]byte // what the process is to hold
	for {
		if n, _ := os.Stdin.Read(next[:]); n == 0 {
			os.Exit(0)
		}
		block := make([]byte, 32*attack.MiB)
		for i := range block {
			block[i] = 1
		}
		held = append(held, block)
		if _, err := net.Listen("tcp", "127.0.0.1:0"); err != nil { // a descriptor, as long as the process lasts
			os.Exit(1)
		}
		_, _ = os.Stdout.Write(next[:])
		runtime.KeepAlive(held)
	}
}

func TestWatchSeesWhatAProcessTakes(t *testing.T) {
	child := exec.Command("/proc/self/exe")
	child.Env = append(os.Environ(), "HOSTILE_CHILD=1")
	in, err := child.StdinPipe()
	require.NoError(t, err)
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	t.Cleanup(func() {
		_ = in.Close()
		require.NoError(t, child.Wait())
	})
	take := func() {
		_, err := in.Write([]byte("x"))
		require.NoError(t, err)
		var done [1]byte
		_, err = out.Read(done[:])
		require.NoError(t, err)
	}
	take()
	stop := attack.Watch(t, child.Process.Pid)
	require.Less(t, stop().Grown(), int64(16*attack.MiB), "what was held before is not what the attack took")

	stop = attack.Watch(t, child.Process.Pid)
	take()
	seen := stop()
	require.Greater(t, seen.Grown(), int64(24*attack.MiB))
	require.Less(t, seen.Grown(), int64(64*attack.MiB))
}

func TestGoodTrafficCountsWhatFails(t *testing.T) {
	calls := make(chan struct{}, 1000)
	stop := attack.GoodTraffic(t, time.Millisecond, func(context.Context) error {
		calls <- struct{}{}
		if len(calls) > 3 {
			return net.ErrClosed
		}
		return nil
	})
	require.Eventually(t, func() bool { return len(calls) > 5 }, 10*time.Second, time.Millisecond)
	served := stop()
	require.Equal(t, 3, served.Calls-served.Failed)
	require.ErrorIs(t, served.Last, net.ErrClosed)
}
