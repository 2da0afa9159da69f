package lock_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul/konsultest"
	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

func TestLockRunGivesTheChildItsTokenAndEndsWithItsCode(t *testing.T) {
	g := commandtest.Federation(t)
	got := commandtest.Ctl(t, g, "in", "lock", "run", "jobs/nightly", "--", "sh", "-c", "cat; echo \" $KONSUL_LOCK_NAME $KONSUL_LOCK_TOKEN\"; exit 7")
	require.Equal(t, 7, got.Code)
	require.Equal(t, "in jobs/nightly 1042\n", got.Stdout)
	var released, revoked bool
	for _, request := range g.Requests() {
		if r, ok := request.(*registryv1.ReleaseLockRequest); ok {
			released = r.GetToken() == 1042
		}
		_, ok := request.(*registryv1.RevokeLeaseRequest)
		revoked = revoked || ok
	}
	require.True(t, released)
	require.True(t, revoked)
	require.Zero(t, commandtest.Ctl(t, g, "", "lock", "run", "jobs/nightly", "--", "true").Code)
	require.Equal(t, 6, commandtest.Ctl(t, g, "", "lock", "run", "taken", "--", "true").Code)
	require.Equal(t, 2, commandtest.Ctl(t, g, "", "lock", "run", "jobs/nightly").Code)
	require.Equal(t, 2, commandtest.Ctl(t, g, "", "lock", "run", "jobs/nightly", "--", "no-such-program-anywhere").Code)
}

func TestLockRunEndsTheChildWhenTheLockIsLost(t *testing.T) {
	g := commandtest.Federation(t)
	var mu sync.Mutex
	kept := 0
	konsultest.OnContext(g, func(context.Context, *registryv1.KeepLeaseAliveRequest) (*registryv1.KeepLeaseAliveResponse, error) {
		mu.Lock()
		defer mu.Unlock()
		if kept++; kept > 1 {
			return nil, fault.New(fault.NotFound, "LEASE_NOT_FOUND", "it has ended")
		}
		return &registryv1.KeepLeaseAliveResponse{}, nil
	})
	mark := filepath.Join(t.TempDir(), "ended")
	got := commandtest.Ctl(t, g, "", "lock", "run", "jobs/nightly", "--ttl", "600ms", "--", "sh", "-c", "trap 'echo ended > "+mark+"; exit 0' TERM; while true; do sleep 0.05; done")
	require.Equal(t, 5, got.Code, got.Stderr)
	require.Contains(t, got.Stderr, "was lost while the command ran")
	text, err := os.ReadFile(mark)
	require.NoError(t, err)
	require.Equal(t, "ended", strings.TrimSpace(string(text)))
}
