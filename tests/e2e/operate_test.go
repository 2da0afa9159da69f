package e2e

import (
	"fmt"
	"net/http"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/tests/framework"
)

// TestOperatingARegistry follows README and runbooks with the programs that are shipped.
func TestOperatingARegistry(t *testing.T) {
	s := framework.NewSite(t, framework.USEast, 3)
	s.Open()
	s.Access.MustCTL(t, "operator", "autopilot", "set-config", "--server-stabilization-time", "1s")
	s.Voters("registry-1", "registry-2", "registry-3")

	// Add one, move the leadership to it, remove it while it leads, take it back.
	s.Start("konsul-registry", "r4", 4)
	s.Voters("registry-1", "registry-2", "registry-3", "registry-4")
	require.Contains(t, s.Access.MustCTL(t, "operator", "raft", "transfer-leadership", "registry-4"), "registry-4 leads")
	require.Contains(t, s.Access.MustCTL(t, "operator", "raft", "remove-peer", "registry-4"), "registry-4 is no member any more")
	s.Voters("registry-1", "registry-2", "registry-3")
	require.Contains(t, s.Access.MustCTL(t, "operator", "raft", "add-peer", s.Host(4)+":8502"), "registry-4 is a member")
	s.Voters("registry-1", "registry-2", "registry-3", "registry-4")
	reply := s.Access.REST(t, http.MethodDelete, "/api/v1/operator/raft/peers/registry-4", nil, nil)
	require.Equal(t, http.StatusOK, reply.Status, string(reply.Body))
	s.End("r4", syscall.SIGTERM)
	s.Voters("registry-1", "registry-2", "registry-3")

	// Replace the disk of one.
	s.End("r2", syscall.SIGTERM)
	s.Wipe("r2")
	s.Start("konsul-registry", "r2", 2)
	s.Voters("registry-1", "registry-2", "registry-3")

	// Two of three are gone for good.
	s.End("r2", syscall.SIGKILL)
	s.End("r3", syscall.SIGKILL)
	require.NotZero(t, s.Access.CTL(t, "--timeout", "3s", "kv", "set", "never-acknowledged", "w").Code)
	out, err := s.Registry("r1", 1, "recover", "--dry-run")
	require.Error(t, err)
	require.Contains(t, out, "is the server still running?")
	s.End("r1", syscall.SIGTERM)
	out, err = s.Registry("r1", 1, "recover", "--dry-run")
	require.NoError(t, err, out)
	require.Contains(t, out, "dry run: nothing was changed")
	out, err = s.Registry("r1", 1, "recover")
	require.NoError(t, err, out)
	require.Contains(t, out, "done: registry-1 is the only voter")
	s.Start("konsul-registry", "r1", 1)
	s.Voters("registry-1")
	require.Regexp(t, `Value +v\n`, s.Access.MustCTL(t, "kv", "get", "k"))
	// The lost ones must not come back with what they had.
	s.Start("konsul-registry", "r3", 3)
	cmd := s.Running["r3"]
	delete(s.Running, "r3")
	require.Error(t, cmd.Wait())
	require.Contains(t, s.Said("r3"), "recovered from a lost quorum without this server")
	for i := 2; i <= 3; i++ {
		name := fmt.Sprintf("r%d", i)
		s.Wipe(name)
		s.Start("konsul-registry", name, i)
	}
	s.Voters("registry-1", "registry-2", "registry-3")
	require.Regexp(t, `Value +v\n`, s.Access.MustCTL(t, "kv", "get", "--read-mode", "linearizable", "k"))
}
