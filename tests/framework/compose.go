package framework

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const composeReadyTimeout = 5 * time.Minute

// Compose is the three-datacenter lab in containers.
type Compose struct {
	Dir     string
	Project string

	t   *testing.T
	cmd *exec.Cmd
	out *tail
}

// StartCompose builds nothing: `make images` has. It starts the compose lab, waits until it is
// ready, and takes it down when the test ends. Without Docker the test is skipped, in CI it fails.
func StartCompose(t *testing.T) *Compose {
	t.Helper()
	for _, program := range [][]string{{"docker", "info"}, {"docker-compose", "version"}} {
		err := exec.Command(program[0], program[1:]...).Run()
		if err != nil && os.Getenv("CI") != "" {
			t.Fatalf("CI must run the compose story, but %s does not answer: %v", program[0], err)
		}
		if err != nil {
			t.Skipf("%s does not answer: %v", program[0], err)
		}
	}
	c := &Compose{Dir: filepath.Join(t.TempDir(), "compose-lab"), Project: "konsul-e2e", t: t, out: &tail{}}
	c.cmd = exec.Command(Bin(t, "konsul-lab"), "compose", "up", "--dir", c.Dir, "--project", c.Project)
	// It reads compose/docker-compose.yml from the repository's root.
	c.cmd.Dir = "../.."
	c.cmd.Stderr = c.out
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	stdout, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.cmd.Start())
	ready, done := make(chan struct{}), make(chan struct{})
	go func() {
		var once sync.Once
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			fmt.Fprintln(c.out, lines.Text())
			if strings.TrimSpace(lines.Text()) == "lab ready" {
				once.Do(func() { close(ready) })
			}
		}
		close(done)
	}()
	t.Cleanup(func() { c.stop(done) })
	select {
	case <-ready:
	case <-done:
		t.Fatalf("the compose lab ended before it was ready:\n%s", c.out)
	case <-time.After(composeReadyTimeout):
		t.Fatalf("the compose lab was not ready within %s:\n%s", composeReadyTimeout, c.out)
	}
	return c
}

func (c *Compose) stop(done chan struct{}) {
	_ = c.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-done:
	case <-time.After(2 * stopTimeout):
		_ = c.cmd.Process.Kill()
		c.t.Error("the compose lab did not stop in time")
	}
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("the compose lab ended with %v", err)
	}
	if c.t.Failed() {
		c.t.Logf("compose lab output:\n%s", c.out)
	}
}

// Access returns how to reach a datacenter by its published port.
func (c *Compose) Access(dc string) Access { return ReadEnv(c.t, filepath.Join(c.Dir, dc+".env")) }

// Containers returns the ids of a datacenter's containers, running or not.
func (c *Compose) Containers(dc string) []string {
	c.t.Helper()
	out := c.docker("ps", "-aq", "--filter", "label=com.docker.compose.project="+c.Project, "--filter", "label=konsul.datacenter="+dc)
	ids := strings.Fields(out)
	require.NotEmpty(c.t, ids, "%s has no containers", dc)
	return ids
}

// Logs returns what a container wrote so far.
func (c *Compose) Logs(id string) string { return c.docker("logs", id) }

// Kill sends SIGKILL to all of a datacenter's containers.
func (c *Compose) Kill(dc string) { c.docker(append([]string{"kill"}, c.Containers(dc)...)...) }

// Start starts a datacenter's containers again.
func (c *Compose) Start(dc string) { c.docker(append([]string{"start"}, c.Containers(dc)...)...) }

// CutOff takes a datacenter off the network between datacenters; Rejoin puts it back.
func (c *Compose) CutOff(dc string) {
	for _, name := range c.wan(dc) {
		c.docker("network", "disconnect", c.Project+"_wan", name)
	}
}

// Rejoin puts a datacenter back on the network between datacenters, under the names it had.
func (c *Compose) Rejoin(dc string) {
	for _, name := range c.wan(dc) {
		labels := c.docker("inspect", "-f", `{{index .Config.Labels "com.docker.compose.service"}} {{index .Config.Labels "konsul.wan-address"}}`, name)
		service, address, _ := strings.Cut(strings.TrimSpace(labels), " ")
		c.docker("network", "connect", "--alias", service, "--ip", address, c.Project+"_wan", name)
	}
}

// wan returns a datacenter's containers that belong on the network between datacenters.
func (c *Compose) wan(dc string) []string {
	c.t.Helper()
	ids := strings.Fields(c.docker("ps", "-aq", "--filter", "label=com.docker.compose.project="+c.Project,
		"--filter", "label=konsul.datacenter="+dc, "--filter", "label=konsul.wan=true"))
	require.NotEmpty(c.t, ids, "%s has no containers on the WAN", dc)
	return ids
}

func (c *Compose) docker(args ...string) string {
	c.t.Helper()
	out, err := exec.Command("docker", args...).CombinedOutput()
	require.NoErrorf(c.t, err, "docker %v: %s", args, out)
	return string(out)
}
