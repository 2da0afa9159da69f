package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/tests/framework"
)

type health struct {
	Leader             string
	Healthy, Available bool
	Problems           []struct{ Reason, Server string }
}

func healthOf(t *testing.T, access framework.Access) health {
	t.Helper()
	var got health
	reply := access.REST(t, http.MethodGet, "/api/v1/cluster/status", nil, nil)
	require.Equal(t, http.StatusOK, reply.Status, string(reply.Body))
	require.NoError(t, json.Unmarshal(reply.Body, &got))
	return got
}

func (h health) names(reason, server string) bool {
	for _, p := range h.Problems {
		if p.Reason == reason && p.Server == server {
			return true
		}
	}
	return false
}

// TestAPausedLeaderHoldsUpNoWriteAndIsNamed pauses registry servers under writes through the edge.
func TestAPausedLeaderHoldsUpNoWriteAndIsNamed(t *testing.T) {
	s := framework.NewSite(t, framework.USEast, 3)
	s.Open()
	s.Voters("registry-1", "registry-2", "registry-3")
	require.True(t, healthOf(t, s.Access).Healthy)

	leader := healthOf(t, s.Access).Leader
	paused := s.Running["r"+strings.TrimPrefix(leader, "registry-")].Process
	require.NoError(t, paused.Signal(syscall.SIGSTOP))
	var longest time.Duration
	for i := range 15 {
		began := time.Now()
		reply := s.Access.REST(t, http.MethodPut, fmt.Sprintf("/api/v1/kv/p%d", i), []byte("v"), nil)
		longest = max(longest, time.Since(began))
		require.Equal(t, http.StatusOK, reply.Status, string(reply.Body))
	}
	t.Logf("the longest write while the leader was paused took %s", longest)
	require.Less(t, longest, 10*time.Second, "it would have lasted as long as the pause")

	now := healthOf(t, s.Access)
	require.True(t, now.Available, "two of three serve")
	require.False(t, now.Healthy)
	require.True(t, now.names("SERVER_DOWN", leader), "%+v", now)
	require.NotZero(t, s.Access.CTL(t, "cluster", "status").Code, "a script must hear of it")

	// Of two that are paused no majority is left: said within seconds, by reason and remedy, and by
	// /readyz.
	for i := 1; i <= 3; i++ {
		if name := fmt.Sprintf("registry-%d", i); name != leader && name != now.Leader {
			require.NoError(t, s.Running[fmt.Sprintf("r%d", i)].Process.Signal(syscall.SIGSTOP))
		}
	}
	framework.Eventually(t, time.Minute, "NO_LEADER with its remedy", func() error {
		r := s.Access.CTL(t, "--timeout", "20s", "kv", "set", "k", "v")
		if !strings.Contains(r.Stderr, "NO_LEADER") && !strings.Contains(r.Stderr, "has had no leader") || !strings.Contains(r.Stderr, "konsulctl cluster status") {
			return errors.New(r.Stderr) // what was proposed before the leader stepped down has an outcome that is not known
		}
		return nil
	})
	reply := s.Access.REST(t, http.MethodGet, "/readyz", nil, nil)
	require.Equal(t, http.StatusServiceUnavailable, reply.Status, string(reply.Body))
	require.Contains(t, string(reply.Body), "NO_LEADER")
	require.Equal(t, http.StatusOK, s.Access.REST(t, http.MethodGet, "/readyz?reads", nil, nil).Status)
	require.False(t, healthOf(t, s.Access).Available)

	for i := 1; i <= 3; i++ {
		require.NoError(t, s.Running[fmt.Sprintf("r%d", i)].Process.Signal(syscall.SIGCONT))
	}
	framework.Eventually(t, time.Minute, "all is well again", func() error {
		if got := healthOf(t, s.Access); !got.Healthy {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
}
