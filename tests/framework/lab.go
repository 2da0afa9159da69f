package framework

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The lab's datacenters; us-east is the first primary.
const (
	USEast    = "us-east"
	USWest    = "us-west"
	EUCentral = "eu-central"
)

// Datacenters returns the names of the lab's datacenters, the primary first.
func Datacenters() []string { return []string{USEast, USWest, EUCentral} }

// Layout says how a datacenter's services are spread over processes.
type Layout string

// The layouts of the lab.
const (
	Single     Layout = "single"
	PerService Layout = "per-service"
)

const (
	readyTimeout = 120 * time.Second
	stopTimeout  = 60 * time.Second
)

// LabOptions says what lab to start.
type LabOptions struct {
	Layout Layout
	// Args are further arguments of `konsul-lab up`.
	Args []string
}

// Lab is a running three-datacenter federation.
type Lab struct {
	Dir     string
	Network string // first three numbers of its loopback addresses, such as "127.83.7"

	t   *testing.T
	cmd *exec.Cmd
	out *tail
}

// Bin returns the path of one of our binaries. `make build` makes them; `make test` sees to that.
func Bin(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("KONSUL_BIN")
	if dir == "" {
		root, err := filepath.Abs("../..")
		require.NoError(t, err)
		dir = filepath.Join(root, "bin")
	}
	path := filepath.Join(dir, name)
	_, err := os.Stat(path)
	require.NoErrorf(t, err, "%s is not built: run `make build`", name)
	return path
}

// StartLab starts a lab and waits until it says `lab ready`. It is stopped, and must leave nothing,
// when the test ends.
func StartLab(t *testing.T, o LabOptions) *Lab {
	t.Helper()
	if o.Layout == "" {
		o.Layout = Single
	}
	lab := &Lab{Dir: filepath.Join(t.TempDir(), "lab"), Network: FreeNetwork(t), t: t, out: &tail{}}
	args := append([]string{"up", "--dir", lab.Dir, "--network", lab.Network, "--processes", string(o.Layout)}, o.Args...)
	lab.cmd = exec.Command(Bin(t, "konsul-lab"), args...)
	stdout, err := lab.cmd.StdoutPipe()
	require.NoError(t, err)
	lab.cmd.Stderr = lab.out
	// The lab must not outlive a test binary that is killed.
	lab.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	require.NoError(t, lab.cmd.Start())
	ready, done := make(chan struct{}), make(chan struct{})
	go lab.follow(stdout, ready, done)
	t.Cleanup(func() { lab.stop(done) })
	select {
	case <-ready:
	case <-done:
		t.Fatalf("the lab ended before it was ready:\n%s", lab.out)
	case <-time.After(readyTimeout):
		t.Fatalf("the lab was not ready within %s:\n%s", readyTimeout, lab.out)
	}
	return lab
}

func (l *Lab) follow(stdout io.Reader, ready, done chan struct{}) {
	lines := bufio.NewScanner(stdout)
	var once sync.Once
	for lines.Scan() {
		fmt.Fprintln(l.out, lines.Text())
		if strings.TrimSpace(lines.Text()) == "lab ready" {
			once.Do(func() { close(ready) })
		}
	}
	close(done)
}

func (l *Lab) stop(done chan struct{}) {
	// Wait gives the exit code only after follow has read the last line.
	_ = l.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-done:
	case <-time.After(stopTimeout):
		_ = l.cmd.Process.Kill()
		l.t.Errorf("the lab did not stop within %s", stopTimeout)
	}
	if err := l.cmd.Wait(); err != nil {
		l.t.Errorf("the lab ended with %v", err)
	}
	if l.t.Failed() {
		l.t.Logf("lab output:\n%s", l.out)
	}
}

// Output returns what the lab has printed so far.
func (l *Lab) Output() string { return l.out.String() }

// Address returns a datacenter's loopback address.
func (l *Lab) Address(dc string) string {
	for i, name := range Datacenters() {
		if name == dc {
			return l.Network + "." + strconv.Itoa(i+1)
		}
	}
	l.t.Fatalf("no datacenter %q in the lab", dc)
	return ""
}

// Pids returns the processes of a datacenter.
func (l *Lab) Pids(dc string) []int {
	l.t.Helper()
	text, err := os.ReadFile(filepath.Join(l.Dir, dc+".pid"))
	require.NoError(l.t, err)
	var pids []int
	for field := range strings.FieldsSeq(string(text)) {
		pid, err := strconv.Atoi(field)
		require.NoError(l.t, err)
		pids = append(pids, pid)
	}
	require.NotEmpty(l.t, pids, "%s has no processes", dc)
	return pids
}

// Kill sends SIGKILL to every process of a datacenter and waits until they are gone.
func (l *Lab) Kill(dc string) {
	l.t.Helper()
	pids := l.Pids(dc)
	for _, pid := range pids {
		require.NoError(l.t, syscall.Kill(pid, syscall.SIGKILL))
	}
	Eventually(l.t, 10*time.Second, "every process of "+dc+" is gone", func() error {
		for _, pid := range pids {
			if alive(pid) {
				return fmt.Errorf("process %d is alive", pid)
			}
		}
		return nil
	})
}

// Start brings a killed datacenter back.
func (l *Lab) Start(dc string) {
	l.t.Helper()
	out, err := exec.Command(Bin(l.t, "konsul-lab"), "start", dc, "--dir", l.Dir).CombinedOutput()
	require.NoErrorf(l.t, err, "konsul-lab start %s: %s", dc, out)
}

// alive tells a running process from one that is gone or not yet reaped.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, ok := bytes.Cut(stat, []byte(") "))
	return !ok || len(rest) == 0 || rest[0] != 'Z'
}

// FreeNetwork finds three loopback addresses nobody listens on.
func FreeNetwork(t *testing.T) string {
	t.Helper()
	for range 50 {
		network := fmt.Sprintf("127.%d.%d", 30+rand.IntN(200), 1+rand.IntN(250))
		free := true
		for i := range Datacenters() {
			listener, err := net.Listen("tcp", fmt.Sprintf("%s.%d:8500", network, i+1))
			if err != nil {
				free = false
				break
			}
			require.NoError(t, listener.Close())
		}
		if free {
			return network
		}
	}
	t.Fatal("no free loopback network found")
	return ""
}

// tail keeps what a process printed, for the log of a test that fails. Safe for concurrent use.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *tail) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *tail) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
