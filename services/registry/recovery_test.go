package registry_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry"
	"konsul.dev/services/registry/registrytest"
)

// rows returns everything a server shows of the key-value store.
func rows(t *testing.T, c *registrytest.Client) map[string]string {
	t.Helper()
	out, after := map[string]string{}, ""
	for {
		page, err := c.KV.List(c.Ctx(), &registryv1.ListRequest{Limit: 500, PageToken: after, ReadMode: registryv1.ReadMode_READ_MODE_LINEARIZABLE})
		require.NoError(t, err)
		for _, e := range page.GetEntries() {
			out[e.GetKey()] = fmt.Sprint(string(e.GetValue()), e.GetModifyIndex(), e.GetVersion())
		}
		if after = page.GetNextPageToken(); after == "" {
			return out
		}
	}
}

func TestOneOfThreeIsRecoveredAndTwoNewOnesJoinIt(t *testing.T) {
	t.Parallel()
	// With and without a snapshot that the state is ahead of.
	for name, snapshot := range map[string]bool{"log": false, "snapshot": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := registrytest.Start(t, 3, registrytest.Options{Adjust: func(cfg *registry.Config) {
				cfg.Registry.Raft.SnapshotThreshold, cfg.Registry.Raft.TrailingLogs = 1<<30, 2
			}})
			hurry(t, c, 3)
			awaitVoters(t, c, c.Servers...)
			survivor := c.Servers[0]
			for i := range 40 {
				set(t, c.Client(survivor), fmt.Sprintf("k%d", i), "v")
				if snapshot && i == 20 {
					require.NoError(t, survivor.Snapshot())
				}
			}
			register(t, c.Client(survivor), "n1", "api-1", "api")
			before := rows(t, c.Client(survivor))
			last := set(t, c.Client(survivor), "last", "v").GetMeta().GetIndex()
			require.Len(t, before, 40)
			c.Eventually(func() error {
				_, err := c.Client(survivor).KV.Get(c.Client(survivor).Ctx(), &registryv1.GetRequest{Key: "last", ReadMode: registryv1.ReadMode_READ_MODE_STALE})
				return err
			})
			_, err := survivor.Recover(false)
			require.ErrorContains(t, err, "is the server still running?")
			for _, s := range c.Servers {
				s.Kill()
			}
			said, err := survivor.Recover(true)
			require.NoError(t, err)
			require.Contains(t, said, "dry run: nothing was changed")
			require.Contains(t, said, c.Servers[1].ID()+" must not run again with the data it has")
			survivor.Start()
			require.Error(t, survivor.Ready(), "the dry run changed nothing: it has no majority")
			survivor.Kill()
			said, err = survivor.Recover(false)
			require.NoError(t, err)
			require.Contains(t, said, "done: "+survivor.ID()+" is the only voter")
			survivor.Start()
			awaitVoters(t, c, survivor)
			require.Greater(t, set(t, c.Client(survivor), "after", "v").GetMeta().GetIndex(), last, "an index never decreases")

			// One that was lost returns with what it had: it is told that this is the past.
			c.Servers[1].Start()
			require.Equal(t, "SERVER_SUPERSEDED", fault.ReasonOf(<-c.Servers[1].Failed))
			c.Servers[1].Kill()
			c.Servers[1].Wipe()
			c.Servers[1].Start()
			fresh := c.Grow()
			awaitVoters(t, c, survivor, c.Servers[1], fresh)
			for _, s := range []*registrytest.Server{survivor, c.Servers[1], fresh} {
				got := rows(t, c.Client(s))
				require.Equal(t, "v", get(t, c.Client(s), "after", registryv1.ReadMode_READ_MODE_LINEARIZABLE))
				delete(got, "local/last")
				delete(got, "local/after")
				delete(got, "last")
				delete(got, "after")
				require.Equal(t, before, got)
				health, err := c.Client(s).Catalog.QueryService(c.Client(s).Ctx(), &registryv1.QueryServiceRequest{Service: "api"})
				require.NoError(t, err)
				require.Len(t, health.GetInstances(), 1)
			}
		})
	}
}

func TestRecoveryRefusesWhatIsDamaged(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, 1, registrytest.Options{Adjust: func(cfg *registry.Config) {
		cfg.Registry.Raft.TrailingLogs = 1
	}})
	s := c.Servers[0]
	for i := range 20 {
		set(t, c.Client(s), fmt.Sprintf("k%d", i), "v")
	}
	require.NoError(t, s.Snapshot())
	set(t, c.Client(s), "last", "v")
	s.Kill()
	files, err := filepath.Glob(filepath.Join(s.Dir("raft"), "snapshots", "*", "state.bin"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	whole, err := os.ReadFile(files[0])
	require.NoError(t, err)
	broken := append([]byte{}, whole...)
	broken[len(broken)/2] ^= 0x40
	require.NoError(t, os.WriteFile(files[0], broken, 0o600))
	_, err = s.Recover(false)
	require.Equal(t, "STATE_DAMAGED", fault.ReasonOf(err), "%v", err)
	require.NoError(t, os.WriteFile(files[0], whole, 0o600))

	// The state is gone and the log no longer reaches back: the snapshot alone is enough, nothing
	// at all is not.
	require.NoError(t, os.RemoveAll(s.Dir("state")))
	said, err := s.Recover(true)
	require.NoError(t, err)
	require.Contains(t, said, "state up to index 0, snapshot at index")
	snapshots := filepath.Join(s.Dir("raft"), "snapshots")
	require.NoError(t, os.Rename(snapshots, snapshots+".away"))
	require.NoError(t, os.RemoveAll(s.Dir("state")))
	_, err = s.Recover(false)
	require.Equal(t, "STATE_DAMAGED", fault.ReasonOf(err), "%v", err)
	require.ErrorContains(t, err, "what is between is lost")
	require.NoError(t, os.RemoveAll(snapshots))
	require.NoError(t, os.Rename(snapshots+".away", snapshots))
	_, err = s.Recover(false)
	require.NoError(t, err)
	s.Start()
	c.WaitReady()
	require.Len(t, rows(t, c.Client(s)), 21)
	s.Kill()

	s.Wipe()
	_, err = s.Recover(false)
	require.Equal(t, "NOTHING_TO_RECOVER", fault.ReasonOf(err))
}

func TestAServerRefusesFoldersThatAreNotItsOwnOrDoNotFit(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	s := c.Servers[0]
	set(t, c.Client(s), "k", "v")
	s.Stop()
	s.Configure(func(cfg *registry.Config) { cfg.Registry.ID, cfg.Registry.Servers = "another", nil })
	require.Equal(t, "FOREIGN_FOLDER", fault.ReasonOf(s.TryStart()))
	s.Configure(func(cfg *registry.Config) { cfg.Registry.ID = "dc1-1" })
	require.NoError(t, os.Rename(s.Dir("raft"), s.Dir("raft.away")))
	err := s.TryStart()
	require.Equal(t, "STATE_DAMAGED", fault.ReasonOf(err))
	require.ErrorContains(t, err, "the raft folder")
	require.NoError(t, os.RemoveAll(s.Dir("raft")))
	require.NoError(t, os.Rename(s.Dir("raft.away"), s.Dir("raft")))
	s.Start()
	c.WaitReady()
	require.Equal(t, "v", get(t, c.Client(s), "k", 0))
}

func TestAServerSaysWhichOfItsFilesIsDamaged(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	s := c.Servers[0]
	set(t, c.Client(s), "k", "v")
	s.Stop()
	path := filepath.Join(s.Dir("state"), "konsul-mark.json")
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, whole[:len(whole)/2], 0o600))
	err = s.TryStart()
	require.Equal(t, "STATE_DAMAGED", fault.ReasonOf(err), "%v", err)
	require.ErrorContains(t, err, path)
	require.NoError(t, os.WriteFile(path, whole, 0o600))
	s.Start()
	c.WaitReady()
	require.Equal(t, "v", get(t, c.Client(s), "k", 0))
}
