package registry_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/registrytest"
)

// readLeases returns how many leases to read a server gave, or took back.
func readLeases(t *testing.T, s *registrytest.Server, event string) int {
	t.Helper()
	return int(metric(t, s, "konsul_registry_read_leases_total", event))
}

// leased reads from a server until its leader has given it a lease to read once more.
func leased(t *testing.T, c *registrytest.Cluster, leader *registrytest.Server, cl *registrytest.Client) {
	t.Helper()
	before := readLeases(t, leader, "given")
	c.Eventually(func() error {
		get(t, cl, "k", registryv1.ReadMode_READ_MODE_DEFAULT)
		if readLeases(t, leader, "given") == before {
			return fmt.Errorf("no lease was given")
		}
		return nil
	})
}

func TestADefaultReadSeesEveryWriteThoughFollowersDoNotAsk(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	leader, follower := c.Leader(), c.Follower()
	writer, reader := c.Client(leader), c.Client(follower)
	set(t, writer, "k", "0")
	for i := 1; i <= 20; i++ {
		leased(t, c, leader, reader)
		value := fmt.Sprint(i)
		set(t, writer, "k", value)
		// At once: a follower hears of a commit some milliseconds later.
		require.Equal(t, value, get(t, reader, "k", registryv1.ReadMode_READ_MODE_DEFAULT))
	}
	require.Positive(t, readLeases(t, leader, "recalled"))
}

func TestAWriteDoesNotWaitForADeadFollowersReadLeaseForLong(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	leader, follower := c.Leader(), c.Follower()
	writer := c.Client(leader)
	set(t, writer, "k", "0")
	leased(t, c, leader, c.Client(follower))
	follower.Kill()
	set(t, writer, "k", "1")
	require.Equal(t, "1", get(t, writer, "k", registryv1.ReadMode_READ_MODE_LINEARIZABLE))
}

func TestReadLeasesEndWithTheLeadership(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	for i := range 5 {
		leader, follower := c.Leader(), c.Follower()
		set(t, c.Client(leader), "k", fmt.Sprint(i))
		leased(t, c, leader, c.Client(follower))
		cl := c.Client(leader)
		moved, err := cl.Operator.TransferLeadership(cl.Ctx(), &registryv1.TransferLeadershipRequest{})
		require.NoError(t, err)
		require.NotEqual(t, leader.ID(), moved.GetTo())
		value := fmt.Sprintf("%d, after", i)
		set(t, c.Client(c.Leader()), "k", value)
		for _, s := range c.Servers {
			require.Equal(t, value, get(t, c.Client(s), "k", registryv1.ReadMode_READ_MODE_DEFAULT))
		}
	}
}

// Wall clocks jump by hours, forwards and backwards, on the leader and on the follower.
func TestADefaultReadSeesEveryWriteWhileWallClocksJump(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	leader, follower := c.Leader(), c.Follower()
	writer, reader := c.Client(leader), c.Client(follower)
	set(t, writer, "k", "0")
	for i, jump := range []struct{ leader, follower time.Duration }{
		{0, -time.Hour}, {0, 2 * time.Hour}, {-time.Hour, 0}, {2 * time.Hour, 0}, {-time.Hour, time.Hour}, {time.Hour, -time.Hour},
	} {
		leased(t, c, leader, reader)
		leader.ShiftClock(jump.leader)
		follower.ShiftClock(jump.follower)
		value := fmt.Sprint(i)
		set(t, writer, "k", value)
		require.Equal(t, value, get(t, reader, "k", registryv1.ReadMode_READ_MODE_DEFAULT))
	}
	require.Equal(t, leader.ID(), c.Leader().ID(), "a wall clock elects nobody")
}
