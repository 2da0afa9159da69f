package cluster_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/konsultest"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry"
	"konsul.dev/services/registry/registrytest"
)

// move gives a stopped server other addresses; its disk stays.
func move(t *testing.T, s *registrytest.Server) {
	t.Helper()
	address, raft := konsultest.FreeAddress(t), konsultest.FreeAddress(t)
	s.Configure(func(cfg *registry.Config) {
		cfg.Registry.Listen, cfg.Registry.Advertise = address, address
		cfg.Registry.RaftListen, cfg.Registry.RaftAdvertise = raft, raft
	})
}

// servers returns the servers as their leader sees them, by id.
func servers(c *registrytest.Cluster) (map[string]*registryv1.ServerState, error) {
	cl := c.Client(c.Leader())
	status, err := cl.Operator.ClusterStatus(cl.Ctx(), &registryv1.ClusterStatusRequest{})
	if err != nil {
		return nil, err
	}
	out := map[string]*registryv1.ServerState{}
	for _, s := range status.GetServers() {
		out[s.GetId()] = s
	}
	return out, nil
}

// awaitMoved waits until the cluster has the servers where they listen now, each up to date.
func awaitMoved(t *testing.T, c *registrytest.Cluster) {
	t.Helper()
	cl := c.Client(c.Leader())
	set, err := cl.KV.Set(cl.Ctx(), &registryv1.SetRequest{Key: "local/moved", Value: []byte(uuid.NewString())})
	require.NoError(t, err)
	c.Eventually(func() error {
		got, err := servers(c)
		if err != nil {
			return err
		}
		for _, s := range c.Servers {
			p := got[s.ID()]
			if p.GetAddress() != s.RaftAddress() || !p.GetVoter() || p.GetAppliedIndex() < set.GetMeta().GetIndex() {
				return fmt.Errorf("%s is at %s, the cluster has %v", s.ID(), s.RaftAddress(), p)
			}
		}
		return nil
	})
}

func TestAServerThatMovedFindsItsCluster(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, 3, registrytest.Options{ByExpect: true})
	awaitMoved(t, c)
	for name, moved := range map[string]func() []*registrytest.Server{
		"a follower":  func() []*registrytest.Server { return []*registrytest.Server{c.Follower()} },
		"the leader":  func() []*registrytest.Server { return []*registrytest.Server{c.Leader()} },
		"all of them": func() []*registrytest.Server { return c.Servers },
	} {
		t.Run(name, func(t *testing.T) {
			for _, s := range moved() {
				s.Stop()
				move(t, s)
			}
			for _, s := range c.Servers {
				s.Configure(func(cfg *registry.Config) { cfg.Registry.Join = c.Addresses() })
			}
			for _, s := range c.Servers {
				if !s.Running() {
					s.Start()
				}
			}
			c.WaitReady()
			awaitMoved(t, c)
		})
	}
}

// A machine's disk was cloned, and the clone started: it must not speak for the server it is a copy
// of.
func TestACloneOfALivingServerIsNotTakenForOneThatMoved(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, 3, registrytest.Options{ByExpect: true})
	awaitMoved(t, c)
	original := c.Follower()
	original.Stop()
	clone := c.Prepare()
	require.NoError(t, os.CopyFS(clone.DataDir(), os.DirFS(original.DataDir())))
	original.Start()
	c.WaitReady()
	clone.Configure(func(cfg *registry.Config) { cfg.Registry.ID = original.ID() })
	clone.Start()
	c.Eventually(func() error {
		if err := clone.Ready(); err == nil || !strings.Contains(err.Error(), "is alive elsewhere") {
			return fmt.Errorf("the clone: %w", err)
		}
		return nil
	})
	clone.Kill()
	got, err := servers(c)
	require.NoError(t, err)
	require.Equal(t, original.RaftAddress(), got[original.ID()].GetAddress())
}
