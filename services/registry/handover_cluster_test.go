package registry_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/services/registry"
	"konsul.dev/services/registry/registrytest"
)

// Followers would take a minute to notice that there is no leader.
func TestNeitherAStartNorAStopWaitsForAHeartbeatTimeout(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	c := registrytest.Start(t, 3, registrytest.Options{Adjust: func(cfg *registry.Config) {
		cfg.Registry.Raft.HeartbeatTimeout, cfg.Registry.Raft.ElectionTimeout = time.Minute, time.Minute
		cfg.Registry.Raft.LeaderLease = 30 * time.Second
	}})
	leader, follower := c.Leader(), c.Follower()
	set(t, c.Client(follower), "k", "0")
	leader.Stop()
	set(t, c.Client(follower), "k", "1")
	require.NotEqual(t, leader.ID(), c.Leader().ID())
	require.Less(t, time.Since(begun), time.Minute)
}
