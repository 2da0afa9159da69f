package lab_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/ops"
	"konsul.dev/tools/lab/internal/control"
	"konsul.dev/tools/lab/internal/lab"
	"konsul.dev/tools/lab/internal/plan"
	"konsul.dev/tools/lab/internal/process"
	"konsul.dev/tools/lab/internal/ready"
)

const patience = 30 * time.Second

// TestMain lets the test binary, under the name of one of konsul's programs, stand in for it.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "konsul-dc":
		if err := standIn(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "konsul-lab":
		wait()
	default:
		os.Exit(m.Run())
	}
}

// standIn does what the lab sees of a datacenter: it reads its configuration, says that it is
// ready, and ends when asked.
func standIn() error {
	cfg := struct {
		config.Base `koanf:",squash"`
	}{config.DefaultBase()}
	if err := config.Load(&cfg, config.Options{Files: []string{os.Args[2]}}); err != nil {
		return err
	}
	if os.Getenv("KONSUL_TEST_FAIL") == cfg.Server.Datacenter {
		return errors.New("the disk is on fire")
	}
	roots := filepath.Join(cfg.Server.DataDir, "ca", "roots.pem")
	if err := os.MkdirAll(filepath.Dir(roots), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(roots, []byte("roots"), 0o600); err != nil {
		return err
	}
	server := ops.New(obs.Discard(), cfg.Server.DataDir, "konsul-dc", "")
	if err := server.Start(context.Background()); err != nil {
		return err
	}
	wait()
	return server.Stop(context.Background())
}

func wait() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	<-signals
}

// edge is a federation in which all is well.
type edge struct{}

func (edge) Serving(context.Context) error                           { return nil }
func (edge) CreateJoinToken(context.Context, string) (string, error) { return "admit me", nil }
func (edge) Passing(context.Context, string) (int, error)            { return 1, nil }
func (edge) Close() error                                            { return nil }
func (edge) Datacenters(context.Context) ([]ready.Member, error) {
	return []ready.Member{{Name: "us-east", Alive: true}, {Name: "us-west", Alive: true}, {Name: "eu-central", Alive: true}}, nil
}

// output is what the lab prints. Safe for concurrent use.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// running is a lab of stand-ins.
type running struct {
	options     lab.Options
	dir         string
	out, errors *output
	cancel      context.CancelFunc
	ended       chan error
}

func options(t *testing.T, dir string) (lab.Options, *output, *output) {
	t.Helper()
	bin := t.TempDir()
	self, err := os.Executable()
	require.NoError(t, err)
	for _, name := range []string{"konsul-dc", "konsul-lab"} {
		require.NoError(t, os.Symlink(self, filepath.Join(bin, name)))
	}
	// No stand-in binds anything; the ports need only be free.
	layout, err := plan.New(plan.Options{Dir: dir, Bin: bin, Network: "127.99.27", Processes: plan.Single})
	require.NoError(t, err)
	out, errs := &output{}, &output{}
	return lab.Options{
		Layout: layout, Timeout: patience, Out: out, Err: errs,
		Connect: func(string, string, string) (ready.Federation, error) { return edge{}, nil },
	}, out, errs
}

func up(t *testing.T, dir string, change func(*lab.Options)) *running {
	t.Helper()
	o, out, errs := options(t, dir)
	if change != nil {
		change(&o)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	r := &running{options: o, dir: dir, out: out, errors: errs, cancel: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- lab.Up(ctx, o) }()
	t.Cleanup(cancel)
	require.Eventually(t, func() bool { return strings.HasSuffix(out.String(), "\nlab ready\n") }, patience, 10*time.Millisecond, "%s%s", out, errs)
	return r
}

func (r *running) stop(t *testing.T) {
	t.Helper()
	r.cancel()
	require.NoError(t, <-r.ended)
}

func (r *running) pids(t *testing.T, dc string) []int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(r.dir, dc+".pid"))
	require.NoError(t, err)
	var pids []int
	for field := range strings.FieldsSeq(string(text)) {
		pid, err := strconv.Atoi(field)
		require.NoError(t, err)
		pids = append(pids, pid)
	}
	return pids
}

func (r *running) call(t *testing.T, verb, dc string) []control.Datacenter {
	t.Helper()
	answer, err := control.Call(t.Context(), r.dir, control.Request{Verb: verb, Datacenter: dc})
	require.NoError(t, err)
	return answer
}

func TestALabLeavesNothingBehind(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	r := up(t, dir, nil)
	var all []int
	for _, dc := range []string{"us-east", "us-west", "eu-central"} {
		pids := r.pids(t, dc)
		require.Len(t, pids, 3, "konsul-dc and two samples")
		all = append(all, pids...)
		env, err := os.ReadFile(filepath.Join(dir, dc+".env"))
		require.NoError(t, err)
		require.Contains(t, string(env), "export KONSUL_ADDR=https://127.99.27.")
		info, err := os.Stat(filepath.Join(dir, dc+".env"))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	}
	token, err := os.ReadFile(filepath.Join(dir, "us-west", "join-token"))
	require.NoError(t, err)
	require.Equal(t, "admit me\n", string(token))
	require.Contains(t, r.out.String(), "eu-central   secondary   https://127.99.27.3:8500   alive")

	r.stop(t)
	require.NoDirExists(t, dir)
	for _, pid := range all {
		require.False(t, process.Alive(pid, ""))
	}
	require.Empty(t, r.errors.String())
}

func TestAKilledDatacenterIsReportedAndComesBack(t *testing.T) {
	r := up(t, filepath.Join(t.TempDir(), "lab"), nil)
	before := r.pids(t, "us-east")
	for _, pid := range before {
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	require.Eventually(t, func() bool {
		return strings.Contains(r.errors.String(), "us-east: konsul-dc ended by itself: signal: killed")
	}, patience, 10*time.Millisecond)

	r.call(t, control.VerbStart, "us-east")
	after := r.pids(t, "us-east")
	require.Len(t, after, len(before))
	require.NotEqual(t, before, after)
	for _, pid := range after {
		require.True(t, process.Alive(pid, "konsul-"))
	}
	r.stop(t)
}

func TestVerbsActOnOneDatacenter(t *testing.T) {
	r := up(t, filepath.Join(t.TempDir(), "lab"), nil)
	for _, verb := range []string{control.VerbStop, control.VerbKill} {
		datacenters := r.call(t, verb, "us-west")
		require.Empty(t, datacenters[1].Processes, verb)
		require.Len(t, datacenters[0].Processes, 3)
		require.Empty(t, r.pids(t, "us-west"))
		datacenters = r.call(t, control.VerbStart, "us-west")
		require.Len(t, datacenters[1].Processes, 3)
	}
	_, err := control.Call(t.Context(), r.dir, control.Request{Verb: control.VerbStart, Datacenter: "us-west"})
	require.ErrorContains(t, err, "still runs")
	_, err = control.Call(t.Context(), r.dir, control.Request{Verb: control.VerbStop, Datacenter: "mars"})
	require.ErrorContains(t, err, "mars")
	require.Empty(t, r.errors.String(), "an end that was asked for is no news")
	r.stop(t)
}

func TestAFolderHasOneLab(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	r := up(t, dir, nil)
	o, _, _ := options(t, dir)
	require.ErrorContains(t, lab.Up(t.Context(), o), "a lab already runs in")
	r.stop(t)
}

func TestACrashedLabsFolderIsCleared(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	stale := filepath.Join(dir, "us-east", "data", "old")
	require.NoError(t, os.MkdirAll(filepath.Dir(stale), 0o700))
	require.NoError(t, os.WriteFile(stale, nil, 0o600))
	// No process has this id: it is above what Linux gives out.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "us-east.pid"), []byte("4194999\n"), 0o600))
	r := up(t, dir, nil)
	require.NoFileExists(t, stale)
	r.stop(t)
}

func TestLivingProcessesOfACrashedLabAreNamed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	o, _, _ := options(t, dir)
	spawner := process.NewSpawner()
	t.Cleanup(spawner.Close)
	orphan, err := spawner.Start(process.Spec{
		Name: "orphan", Path: filepath.Join(o.Layout.Bin, "konsul-lab"), LogFile: filepath.Join(t.TempDir(), "log"), Grace: patience,
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, orphan.Kill()) })
	require.NoError(t, os.MkdirAll(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "us-west.pid"), fmt.Appendf(nil, "%d\n", orphan.PID()), 0o600))
	require.ErrorContains(t, lab.Up(t.Context(), o), "kill -9 "+strconv.Itoa(orphan.PID()))
}

func TestKeptDataIsUsedAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	keep := func(o *lab.Options) { o.Keep = true }
	r := up(t, dir, keep)
	secret, err := os.ReadFile(filepath.Join(dir, "us-west", "secret"))
	require.NoError(t, err)
	r.stop(t)
	require.NoFileExists(t, filepath.Join(dir, "us-west.env"))

	other, err := plan.New(plan.Options{Dir: dir, Network: "127.99.28", Processes: plan.Single})
	require.NoError(t, err)
	require.ErrorContains(t, lab.Up(t.Context(), lab.Options{Layout: other}), "keeps the data of a lab with network 127.99.27")

	r = up(t, dir, nil)
	again, err := os.ReadFile(filepath.Join(dir, "us-west", "secret"))
	require.NoError(t, err)
	require.Equal(t, secret, again)
	r.stop(t)
	require.NoDirExists(t, dir)
}

func TestATakenPortEndsTheLabBeforeItStarts(t *testing.T) {
	listener, err := net.Listen("tcp", "127.99.27.2:8500")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	dir := filepath.Join(t.TempDir(), "lab")
	o, out, _ := options(t, dir)
	err = lab.Up(t.Context(), o)
	require.ErrorContains(t, err, "tcp 127.99.27.2:8500 (us-west gateway HTTP) is taken by")
	require.ErrorContains(t, err, "--network")
	require.Empty(t, out.String())
	require.NoDirExists(t, dir)
}

func TestADatacenterThatDiesAtItsStartEndsTheLab(t *testing.T) {
	t.Setenv("KONSUL_TEST_FAIL", "us-west")
	dir := filepath.Join(t.TempDir(), "lab")
	o, _, errs := options(t, dir)
	err := lab.Up(t.Context(), o)
	require.ErrorContains(t, err, "us-west: konsul-dc ended by itself: exit status 1")
	require.Contains(t, errs.String(), "the disk is on fire")
	require.FileExists(t, filepath.Join(dir, "us-west", "log", "konsul-dc.log"), "logs stay for the reader")
	require.NoFileExists(t, filepath.Join(dir, "us-west", "secret"))
}

func TestAnInterruptedStartEndsCleanly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	o, _, _ := options(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	o.Connect = func(string, string, string) (ready.Federation, error) {
		cancel()
		return edge{}, ctx.Err()
	}
	require.ErrorContains(t, lab.Up(ctx, o), "interrupted")
	require.NoDirExists(t, dir)
}
