package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/tests/bench"
)

// TestMain lets the benchmark execute this test's program as its servers and load generators.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && !strings.HasPrefix(os.Args[1], "-") {
		main()
		return
	}
	os.Exit(m.Run())
}

// etcdPath returns where the peer is, if it was built.
func etcdPath(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../../../.tools/etcd")
	require.NoError(t, err)
	if _, err := os.Stat(path); err != nil {
		t.Logf("without etcd: %v", err)
		return ""
	}
	return path
}

func options(t *testing.T) (bench.Options, *bytes.Buffer) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	out := &bytes.Buffer{}
	return bench.Options{
		Clients: []int{1, 64}, WarmUp: 10 * time.Millisecond, Duration: 100 * time.Millisecond, Rounds: 1, Keys: 200, Times: 1,
		Self: self, EtcdPath: etcdPath(t), Dir: t.TempDir(), Out: out, Progress: t.Output(),
	}, out
}

func TestEveryUsualLineIsMeasured(t *testing.T) {
	o, out := options(t)
	_, o.Lines = bench.LineNames()
	o.Profiles = t.TempDir()
	require.NoError(t, bench.Run(t.Context(), o))
	measured := out.String()
	for _, line := range o.Lines {
		require.Contains(t, measured, line)
	}
	series := []string{"konsul stale", "konsul default", "konsul linearizable", "limit"}
	if o.EtcdPath != "" {
		series = append(series, "etcd serializable", "etcd linearizable", "konsul / etcd")
	}
	for _, name := range series {
		require.Contains(t, measured, name)
	}
	left, err := os.ReadDir(o.Dir)
	require.NoError(t, err)
	require.Empty(t, left, "the data is removed")
	for _, kind := range []string{"pprof", "heap.pprof"} {
		profiles, err := filepath.Glob(filepath.Join(o.Profiles, "puts-konsul-put-64-round1-server-?."+kind))
		require.NoError(t, err)
		require.Len(t, profiles, 3)
	}
}

func TestWhatIsUnderwayEndsWithItsContext(t *testing.T) {
	o, _ := options(t)
	o.Lines, o.Duration = []string{"puts"}, time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	require.Error(t, bench.Run(ctx, o))
	left, err := os.ReadDir(o.Dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestBadFlagsAreNamed(t *testing.T) {
	for args, want := range map[string]string{
		"-etcd= -lines=nonsense":          `there is no line "nonsense"; there are puts, gets`,
		"-etcd= -clients=1,none":          `"none" is no number of clients`,
		"-etcd=/nowhere/etcd":             "make .tools/.etcd",
		"-etcd= -clients=0":               `"0" is no number of clients`,
		"nonsense {}":                     `unknown command "nonsense"`,
		"-etcd= -rounds=0":                "-rounds",
		"-etcd= -keys=0":                  "-keys",
		"-etcd= -duration=0s":             "-duration",
		"-etcd= -lines=failover -times=0": "-times",
	} {
		t.Run(args, func(t *testing.T) {
			require.ErrorContains(t, run(t.Context(), strings.Fields(args)), want)
		})
	}
}
