package framework

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Site is one datacenter of real programs: a ca, a gateway, and registry servers that find each
// other. Server n is named registry-n and started as program "rn".
type Site struct {
	// Settings are more of the registry's, in YAML.
	Settings string
	// Programs is the folder of what is started from now on; empty: what `make build` made.
	Programs string
	Access   Access
	// Running are the programs by name.
	Running map[string]*exec.Cmd

	t            *testing.T
	name         string
	servers      int
	dir, network string
	said         map[string]*tail
}

func random(t *testing.T, size int) string {
	t.Helper()
	b := make([]byte, size)
	_, err := rand.Read(b)
	require.NoError(t, err)
	return hex.EncodeToString(b)
}

// NewSite lays out a datacenter whose registry begins with so many servers. Nothing runs yet; what
// runs when the test ends is killed.
func NewSite(t *testing.T, name string, servers int) *Site {
	t.Helper()
	s := &Site{t: t, name: name, servers: servers, dir: t.TempDir(), network: FreeNetwork(t), Running: map[string]*exec.Cmd{}, said: map[string]*tail{}}
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "secret"), []byte(random(t, 32)), 0o600))
	s.Access = Access{Addr: "https://" + s.Host(1) + ":8500", Token: random(t, 24), CAFile: filepath.Join(s.dir, "ca", "ca", "roots.pem")}
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "token"), []byte(s.Access.Token), 0o600))
	t.Cleanup(func() {
		for name := range s.Running {
			s.End(name, syscall.SIGKILL)
			if t.Failed() {
				t.Logf("%s of %s said:\n%s", name, s.name, s.said[name])
			}
		}
	})
	return s
}

// Host returns the address of server n.
func (s *Site) Host(n int) string { return fmt.Sprintf("%s.%d", s.network, n) }

func (s *Site) program(name string) string {
	if s.Programs != "" {
		return filepath.Join(s.Programs, name)
	}
	return Bin(s.t, name)
}

// config writes a program's configuration. Servers above those that begin only join.
func (s *Site) config(name string, host int) string {
	expect := ""
	if host <= s.servers {
		expect = fmt.Sprintf("bootstrap_expect: %d", s.servers)
	}
	var registries []string
	for i := 1; i <= s.servers; i++ {
		registries = append(registries, fmt.Sprintf("%q", s.Host(i)+":8502"))
	}
	text := fmt.Sprintf(`
server: {datacenter: %[1]s, primary_datacenter: %[1]s, node: registry-%[2]d, bind_addr: %[3]s, data_dir: %[4]s, secret_file: %[5]s}
endpoints:
  registry: [%[6]s]
  ca: ["%[7]s:8532"]
  gateway: ["%[7]s:8443"]
registry:
  join: [%[6]s]
  initial_management_token_file: %[8]s
  %[9]s
  %[10]s
`, s.name, host, s.Host(host), filepath.Join(s.dir, name), filepath.Join(s.dir, "secret"), strings.Join(registries, ", "), s.Host(1),
		filepath.Join(s.dir, "token"), expect, s.Settings)
	path := filepath.Join(s.dir, name+".yaml")
	require.NoError(s.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// Start starts a program under a name, on the address of a server.
func (s *Site) Start(program, name string, host int, args ...string) {
	s.t.Helper()
	said := &tail{}
	cmd := exec.Command(s.program(program), append([]string{"--config", s.config(name, host)}, args...)...)
	cmd.Stdout, cmd.Stderr = said, said
	require.NoError(s.t, cmd.Start())
	s.Running[name], s.said[name] = cmd, said
}

// End sends a program a signal and waits for its end.
func (s *Site) End(name string, signal syscall.Signal) {
	s.t.Helper()
	cmd := s.Running[name]
	delete(s.Running, name)
	_ = cmd.Process.Signal(signal) // It may have ended by itself.
	err := cmd.Wait()
	var exit *exec.ExitError
	if signal == syscall.SIGTERM || !errors.As(err, &exit) {
		require.NoError(s.t, err, s.said[name])
	}
}

// Registry carries out `konsul-registry WORD` for a server.
func (s *Site) Registry(name string, host int, words ...string) (string, error) {
	out, err := exec.Command(s.program("konsul-registry"), append(words, "--config", s.config(name, host))...).CombinedOutput()
	return string(out), err
}

// Said returns what a program printed since it was last started.
func (s *Site) Said(name string) string { return s.said[name].String() }

// Wipe removes what a program keeps on disk.
func (s *Site) Wipe(name string) { require.NoError(s.t, os.RemoveAll(filepath.Join(s.dir, name))) }

// Open starts the datacenter and waits until it takes writes.
func (s *Site) Open() {
	s.t.Helper()
	s.Start("konsul-ca", "ca", 1)
	for i := 1; i <= s.servers; i++ {
		s.Start("konsul-registry", fmt.Sprintf("r%d", i), i)
	}
	s.Start("konsul-gateway", "gateway", 1)
	Eventually(s.t, time.Minute, "a leader", func() error {
		if r := s.Access.CTL(s.t, "kv", "set", "k", "v"); r.Code != 0 {
			return errors.New(r.Stderr)
		}
		return nil
	})
}

// Voters waits until these servers are the members, all with a vote and healthy.
func (s *Site) Voters(want ...string) {
	s.t.Helper()
	Eventually(s.t, 90*time.Second, "the voters "+strings.Join(want, ","), func() error {
		r := s.Access.CTL(s.t, "operator", "autopilot", "state", "-o", "json")
		if r.Code != 0 {
			return errors.New(r.Stderr)
		}
		var state struct {
			Healthy bool
			Voters  []string
			Servers []struct{ ID string }
		}
		if err := json.Unmarshal([]byte(r.Stdout), &state); err != nil {
			return err
		}
		slices.Sort(state.Voters)
		if !state.Healthy || strings.Join(state.Voters, ",") != strings.Join(want, ",") || len(state.Servers) != len(want) {
			return fmt.Errorf("%s", r.Stdout)
		}
		return nil
	})
}
