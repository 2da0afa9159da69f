package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/tests/framework"
)

// site is one datacenter of real programs: a ca, a gateway, and registry servers that find each other.
type site struct {
	t       *testing.T
	name    string
	servers int
	// settings are more of the registry's, in YAML.
	settings string
	dir      string
	network  string
	access   framework.Access
	running  map[string]*exec.Cmd
	said     map[string]*bytes.Buffer
}

func random(t *testing.T, size int) string {
	t.Helper()
	b := make([]byte, size)
	_, err := rand.Read(b)
	require.NoError(t, err)
	return hex.EncodeToString(b)
}

// buildSite lays out a datacenter whose registry begins with so many servers.
func buildSite(t *testing.T, name string, servers int) *site {
	t.Helper()
	s := &site{t: t, name: name, servers: servers, dir: t.TempDir(), network: framework.FreeNetwork(t), running: map[string]*exec.Cmd{}, said: map[string]*bytes.Buffer{}}
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "secret"), []byte(random(t, 32)), 0o600))
	s.access = framework.Access{Addr: "https://" + s.host(1) + ":8500", Token: random(t, 24), CAFile: filepath.Join(s.dir, "ca", "ca", "roots.pem")}
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "token"), []byte(s.access.Token), 0o600))
	t.Cleanup(func() {
		for name := range s.running {
			s.end(name, syscall.SIGKILL)
			if t.Failed() {
				t.Logf("%s of %s said:\n%s", name, s.name, s.said[name])
			}
		}
	})
	return s
}

func (s *site) host(n int) string { return fmt.Sprintf("%s.%d", s.network, n) }

// config writes a program's configuration. Servers above those that begin only join.
func (s *site) config(name string, host int) string {
	expect := ""
	if host <= s.servers {
		expect = fmt.Sprintf("bootstrap_expect: %d", s.servers)
	}
	var registries []string
	for i := 1; i <= s.servers; i++ {
		registries = append(registries, fmt.Sprintf("%q", s.host(i)+":8502"))
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
`, s.name, host, s.host(host), filepath.Join(s.dir, name), filepath.Join(s.dir, "secret"), strings.Join(registries, ", "), s.host(1),
		filepath.Join(s.dir, "token"), expect, s.settings)
	path := filepath.Join(s.dir, name+".yaml")
	require.NoError(s.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func (s *site) start(program, name string, host int, args ...string) {
	s.t.Helper()
	said := &bytes.Buffer{}
	cmd := exec.Command(framework.Bin(s.t, program), append([]string{"--config", s.config(name, host)}, args...)...)
	cmd.Stdout, cmd.Stderr = said, said
	require.NoError(s.t, cmd.Start())
	s.running[name], s.said[name] = cmd, said
}

// end sends a program a signal and waits for its end.
func (s *site) end(name string, signal syscall.Signal) {
	s.t.Helper()
	cmd := s.running[name]
	delete(s.running, name)
	_ = cmd.Process.Signal(signal) // It may have ended by itself.
	err := cmd.Wait()
	var exit *exec.ExitError
	if signal == syscall.SIGTERM || !errors.As(err, &exit) {
		require.NoError(s.t, err, s.said[name])
	}
}

// registry carries out `konsul-registry WORD` for a server.
func (s *site) registry(name string, host int, words ...string) (string, error) {
	out, err := exec.Command(framework.Bin(s.t, "konsul-registry"), append(words, "--config", s.config(name, host))...).CombinedOutput()
	return string(out), err
}

func (s *site) wipe(name string) { require.NoError(s.t, os.RemoveAll(filepath.Join(s.dir, name))) }

// open starts the datacenter and waits until it takes writes.
func (s *site) open() {
	s.t.Helper()
	s.start("konsul-ca", "ca", 1)
	for i := 1; i <= s.servers; i++ {
		s.start("konsul-registry", fmt.Sprintf("r%d", i), i)
	}
	s.start("konsul-gateway", "gateway", 1)
	framework.Eventually(s.t, time.Minute, "a leader", func() error {
		if r := s.access.CTL(s.t, "kv", "set", "k", "v"); r.Code != 0 {
			return errors.New(r.Stderr)
		}
		return nil
	})
}

// voters waits until these servers are the members, all with a vote and healthy.
func (s *site) voters(want ...string) {
	s.t.Helper()
	framework.Eventually(s.t, 90*time.Second, "the voters "+strings.Join(want, ","), func() error {
		r := s.access.CTL(s.t, "operator", "autopilot", "state", "-o", "json")
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

// TestOperatingARegistry follows README and runbooks with the programs that are shipped.
func TestOperatingARegistry(t *testing.T) {
	s := buildSite(t, framework.USEast, 3)
	s.open()
	s.access.MustCTL(t, "operator", "autopilot", "set-config", "--server-stabilization-time", "1s")
	s.voters("registry-1", "registry-2", "registry-3")

	// Add one, move the leadership to it, remove it while it leads, take it back.
	s.start("konsul-registry", "r4", 4)
	s.voters("registry-1", "registry-2", "registry-3", "registry-4")
	require.Contains(t, s.access.MustCTL(t, "operator", "raft", "transfer-leadership", "registry-4"), "registry-4 leads")
	require.Contains(t, s.access.MustCTL(t, "operator", "raft", "remove-peer", "registry-4"), "registry-4 is no member any more")
	s.voters("registry-1", "registry-2", "registry-3")
	require.Contains(t, s.access.MustCTL(t, "operator", "raft", "add-peer", s.host(4)+":8502"), "registry-4 is a member")
	s.voters("registry-1", "registry-2", "registry-3", "registry-4")
	reply := s.access.REST(t, http.MethodDelete, "/api/v1/operator/raft/peers/registry-4", nil, nil)
	require.Equal(t, http.StatusOK, reply.Status, string(reply.Body))
	s.end("r4", syscall.SIGTERM)
	s.voters("registry-1", "registry-2", "registry-3")

	// Replace the disk of one.
	s.end("r2", syscall.SIGTERM)
	s.wipe("r2")
	s.start("konsul-registry", "r2", 2)
	s.voters("registry-1", "registry-2", "registry-3")

	// Two of three are gone for good.
	s.end("r2", syscall.SIGKILL)
	s.end("r3", syscall.SIGKILL)
	require.NotZero(t, s.access.CTL(t, "--timeout", "3s", "kv", "set", "never-acknowledged", "w").Code)
	out, err := s.registry("r1", 1, "recover", "--dry-run")
	require.Error(t, err)
	require.Contains(t, out, "is the server still running?")
	s.end("r1", syscall.SIGTERM)
	out, err = s.registry("r1", 1, "recover", "--dry-run")
	require.NoError(t, err, out)
	require.Contains(t, out, "dry run: nothing was changed")
	out, err = s.registry("r1", 1, "recover")
	require.NoError(t, err, out)
	require.Contains(t, out, "done: registry-1 is the only voter")
	s.start("konsul-registry", "r1", 1)
	s.voters("registry-1")
	require.Regexp(t, `Value +v\n`, s.access.MustCTL(t, "kv", "get", "k"))
	// The lost ones must not come back with what they had.
	s.start("konsul-registry", "r3", 3)
	cmd := s.running["r3"]
	delete(s.running, "r3")
	require.Error(t, cmd.Wait())
	require.Contains(t, s.said["r3"].String(), "recovered from a lost quorum without this server")
	for i := 2; i <= 3; i++ {
		name := fmt.Sprintf("r%d", i)
		s.wipe(name)
		s.start("konsul-registry", name, i)
	}
	s.voters("registry-1", "registry-2", "registry-3")
	require.Regexp(t, `Value +v\n`, s.access.MustCTL(t, "kv", "get", "--read-mode", "linearizable", "k"))
}
