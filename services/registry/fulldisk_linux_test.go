package registry_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry"
	"konsul.dev/services/registry/internal/freespace"
	"konsul.dev/services/registry/registrytest"
)

// smallDisk mounts a file system of so many bytes. It takes root: without it the test is skipped,
// but in CI.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size)
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("mounting takes root: %v", err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

func TestAFullDiskStopsAServerInOrderAndRoomBringsItBack(t *testing.T) {
	dir := smallDisk(t, "256m")
	c := registrytest.Start(t, 1, registrytest.Options{Adjust: func(cfg *registry.Config) {
		cfg.Server.DataDir, cfg.Registry.MinFreeBytes = filepath.Join(dir, "konsul"), 96<<20
	}})
	server := c.Servers[0]
	cl := c.Client(server)
	value := make([]byte, 64<<10)
	set := func() error {
		_, err := cl.KV.Set(cl.Ctx(), &registryv1.SetRequest{Key: "local/k", Value: value})
		return err
	}
	require.NoError(t, set())

	// Somebody else fills the disk while the server writes.
	filler := filepath.Join(dir, "filler")
	file, err := os.Create(filler)
	require.NoError(t, err)
	var full error
	deadline := time.After(registrytest.Patience)
	for full == nil {
		free, err := freespace.Available(dir)
		require.NoError(t, err)
		if free > 80<<20 {
			_, err = file.Write(make([]byte, 1<<20))
			require.NoError(t, err)
		}
		_ = set() // Until it stops.
		select {
		case full = <-server.Failed:
		case <-deadline:
			t.Fatal("the server goes on without room")
		default:
		}
	}
	require.NoError(t, file.Close())
	require.Equal(t, freespace.ReasonDiskFull, fault.ReasonOf(full))
	server.Stop()

	started := make(chan struct{})
	go func() {
		defer close(started)
		server.Start() // It waits for room.
	}()
	require.NoError(t, os.Remove(filler))
	<-started
	c.WaitReady()
	cl = c.Client(server)
	got, err := cl.KV.Get(cl.Ctx(), &registryv1.GetRequest{Key: "local/k"})
	require.NoError(t, err)
	require.Equal(t, value, got.GetEntry().GetValue())
}
