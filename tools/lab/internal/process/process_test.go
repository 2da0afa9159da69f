package process_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/tools/lab/internal/process"
)

// roleKey makes a re-executed test binary play a child instead of running tests.
const roleKey = "KONSUL_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleKey) {
	case "polite":
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM)
		fmt.Println("up")
		<-signals
		fmt.Println("goodbye")
	case "reloading":
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM)
		fmt.Println("up")
		for sig := range signals {
			if sig == syscall.SIGTERM {
				return
			}
			fmt.Println("reloaded")
		}
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("up")
		<-time.After(time.Hour) // an empty select would be a deadlock, which ends a process without cgo
	case "failing":
		fmt.Println("cannot go on")
		os.Exit(3)
	case "parent":
		child, err := process.NewSpawner().Start(process.Spec{
			Name: "polite", Path: os.Args[0], Env: []string{roleKey + "=polite"}, LogFile: os.Getenv("CHILD_LOG"),
		}, nil)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(child.PID())
		select {}
	default:
		os.Exit(m.Run())
	}
}

func spec(t *testing.T, role string) process.Spec {
	t.Helper()
	return process.Spec{
		Name: role, Path: os.Args[0], Env: []string{roleKey + "=" + role},
		LogFile: filepath.Join(t.TempDir(), "log", role+".log"), Grace: 10 * time.Second,
	}
}

func spawner(t *testing.T) *process.Spawner {
	t.Helper()
	s := process.NewSpawner()
	t.Cleanup(s.Close)
	return s
}

func waitLog(t *testing.T, path, text string) {
	t.Helper()
	require.Eventually(t, func() bool {
		tail, err := process.Tail(path, 10)
		return err == nil && strings.Contains(tail, text)
	}, 10*time.Second, 10*time.Millisecond)
}

func TestReloadReachesEveryMemberOfAGroup(t *testing.T) {
	group := process.NewGroup(spawner(t), nil)
	one, two := spec(t, "reloading"), spec(t, "reloading")
	require.NoError(t, group.Start([]process.Spec{one, two}))
	t.Cleanup(func() { require.NoError(t, group.Kill()) })
	for _, s := range []process.Spec{one, two} {
		waitLog(t, s.LogFile, "up")
	}
	require.NoError(t, group.Reload())
	for _, s := range []process.Spec{one, two} {
		waitLog(t, s.LogFile, "reloaded")
	}
	require.Len(t, group.Members(), 2)
}

func TestStopIsGraceful(t *testing.T) {
	p, err := spawner(t).Start(spec(t, "polite"), nil)
	require.NoError(t, err)
	waitLog(t, p.LogFile(), "up")
	require.True(t, p.Running())
	require.True(t, process.Alive(p.PID(), "process.test"))
	require.False(t, process.Alive(p.PID(), "konsul-"))

	require.NoError(t, p.Stop(t.Context()))
	require.False(t, p.Running())
	require.NoError(t, p.Unexpected())
	waitLog(t, p.LogFile(), "goodbye")
	require.False(t, process.Alive(p.PID(), ""))
}

func TestAStubbornProcessIsKilledAfterItsGrace(t *testing.T) {
	s := spec(t, "stubborn")
	s.Grace = 50 * time.Millisecond
	p, err := spawner(t).Start(s, nil)
	require.NoError(t, err)
	waitLog(t, p.LogFile(), "up")
	require.ErrorContains(t, p.Stop(t.Context()), "stubborn did not end within 50ms of SIGTERM and was killed")
	require.False(t, p.Running())
}

func TestAnUnaskedEndIsReported(t *testing.T) {
	ended := make(chan *process.Process, 1)
	_, err := spawner(t).Start(spec(t, "failing"), func(p *process.Process) { ended <- p })
	require.NoError(t, err)
	p := <-ended
	require.ErrorContains(t, p.Unexpected(), "failing ended by itself: exit status 3")
	require.NoError(t, p.Stop(t.Context()), "stopping what is gone is no error")
	require.Error(t, p.Unexpected(), "and does not hide that it died")
	waitLog(t, p.LogFile(), "cannot go on")
}

func TestAMissingProgramIsAnError(t *testing.T) {
	s := spec(t, "polite")
	s.Path = filepath.Join(t.TempDir(), "absent")
	_, err := spawner(t).Start(s, nil)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestAGroupStopsInReverseOrder(t *testing.T) {
	var order []string
	ended := make(chan string, 2)
	first, second := spec(t, "polite"), spec(t, "polite")
	first.Name, second.Name = "first", "second"
	group := process.NewGroup(spawner(t), func(p *process.Process) { ended <- p.Name() })
	require.NoError(t, group.Start([]process.Spec{first, second}))
	require.Equal(t, 2, group.Running())
	for _, p := range group.Members() {
		waitLog(t, p.LogFile(), "up")
	}
	require.NoError(t, group.Stop(t.Context()))
	order = append(order, <-ended, <-ended)
	require.Equal(t, []string{"second", "first"}, order)
	require.Empty(t, group.Members())
}

func TestAGroupDiesAtOnceWhenKilled(t *testing.T) {
	group := process.NewGroup(spawner(t), nil)
	require.NoError(t, group.Start([]process.Spec{spec(t, "stubborn"), spec(t, "stubborn")}))
	members := group.Members()
	require.NoError(t, group.Kill())
	for _, p := range members {
		require.False(t, p.Running())
		require.NoError(t, p.Unexpected())
	}
}

func TestKillingTheParentLeavesNothing(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ties a child's life to its parent's")
	}
	log := filepath.Join(t.TempDir(), "child.log")
	parent := exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0])
	parent.Env = append(os.Environ(), roleKey+"=parent", "CHILD_LOG="+log)
	out, err := parent.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, parent.Start())
	var line string
	_, err = fmt.Fscanln(out, &line)
	require.NoError(t, err)
	pid, err := strconv.Atoi(line)
	require.NoError(t, err)
	waitLog(t, log, "up")

	require.NoError(t, parent.Process.Kill())
	require.Error(t, parent.Wait())
	require.Eventually(t, func() bool { return !process.Alive(pid, "") }, 10*time.Second, 10*time.Millisecond)
}
