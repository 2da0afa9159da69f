package registry_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/registrytest"
)

// hurry makes autopilot decide within a test's patience.
func hurry(t *testing.T, c *registrytest.Cluster, minQuorum uint32) {
	t.Helper()
	cl := c.Client(c.Leader())
	_, err := cl.Operator.SetAutopilotConfig(cl.Ctx(), &registryv1.SetAutopilotConfigRequest{Config: &registryv1.AutopilotConfig{
		ServerStabilizationTime: durationpb.New(100 * time.Millisecond), DeadServerAfter: durationpb.New(2 * time.Second), MinQuorum: proto.Uint32(minQuorum),
	}})
	require.NoError(t, err)
}

func peers(cl *registrytest.Client) (map[string]*registryv1.ServerState, error) {
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

// awaitVoters waits until exactly these servers are members, all with a vote.
func awaitVoters(t *testing.T, c *registrytest.Cluster, want ...*registrytest.Server) {
	t.Helper()
	c.Eventually(func() error {
		got, err := peers(c.Client(c.Leader()))
		if err != nil {
			return err
		}
		for _, s := range want {
			if !got[s.ID()].GetVoter() {
				return fmt.Errorf("%s has no vote: %v", s.ID(), got)
			}
		}
		if len(got) != len(want) {
			return fmt.Errorf("%d members, not %d: %v", len(got), len(want), got)
		}
		return nil
	})
}

// leaderless says that servers which lack data have made no leader.
func leaderless(servers ...*registrytest.Server) func() error {
	return func() error {
		for _, s := range servers {
			if s.Ready() == nil {
				return fmt.Errorf("%s has a leader", s.ID())
			}
		}
		return nil
	}
}

func TestServersFoundOneClusterByExpectedCount(t *testing.T) {
	t.Parallel()
	c := registrytest.Prepare(t, 3, registrytest.Options{ByExpect: true})
	c.Servers[2].Start()
	c.Servers[1].Start()
	registrytest.Eventually(t, func() error {
		if err := c.Servers[1].Ready(); err == nil || !strings.Contains(err.Error(), "2 of 3 servers have met; no answer from "+c.Servers[0].Address()) {
			return fmt.Errorf("two of three: %w", err)
		}
		return nil
	})
	require.Equal(t, fault.ReasonNoLeader, fault.ReasonOf(c.Servers[1].Ready()))
	start := time.Now()
	c.Servers[0].Start()
	c.WaitReady()
	set(t, c.Client(c.Servers[2]), "k", "v")
	t.Logf("third server started to first write: %v", time.Since(start))
	awaitVoters(t, c, c.Servers...)
	for _, s := range c.Servers {
		require.Equal(t, "v", get(t, c.Client(s), "k", registryv1.ReadMode_READ_MODE_LINEARIZABLE))
	}
}

func TestAServerThatLostItsDiskHasNoVoteUntilItHasCaughtUp(t *testing.T) {
	t.Parallel()
	for name, byExpect := range map[string]bool{"servers": false, "join": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := registrytest.Start(t, 3, registrytest.Options{ByExpect: byExpect})
			hurry(t, c, 3)
			awaitVoters(t, c, c.Servers...)
			leader := c.Leader()
			lost, kept := c.Follower(), c.Servers[0]
			for _, s := range c.Servers {
				if s != leader && s != lost {
					kept = s
				}
			}
			// What the lost one acknowledges the kept one does not have.
			kept.Kill()
			set(t, c.Client(leader), "k", "acknowledged")
			lost.Kill()
			leader.Kill()
			lost.Wipe()
			kept.Start()
			lost.Start()
			registrytest.Throughout(t, 2*time.Second, leaderless(kept, lost))
			leader.Start()
			c.WaitReady()
			awaitVoters(t, c, c.Servers...)
			for _, s := range c.Servers {
				require.Equal(t, "acknowledged", get(t, c.Client(s), "k", registryv1.ReadMode_READ_MODE_LINEARIZABLE))
			}
		})
	}
}

func TestTwoServersWithoutTheirDisksFoundNoSecondCluster(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, 3, registrytest.Options{})
	set(t, c.Client(c.Leader()), "k", "v")
	kept := c.Leader()
	var lost []*registrytest.Server
	for _, s := range c.Servers {
		s.Kill()
		if s != kept {
			s.Wipe()
			lost = append(lost, s)
		}
	}
	for _, s := range lost {
		s.Start()
	}
	require.ErrorContains(t, lost[0].Ready(), "no leader")
	kept.Start()
	registrytest.Throughout(t, 2*time.Second, leaderless(c.Servers...))
	require.Equal(t, "v", get(t, c.Client(kept), "k", registryv1.ReadMode_READ_MODE_STALE))
}

func TestServersComeAndGo(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, 3, registrytest.Options{})
	hurry(t, c, 3)
	set(t, c.Client(c.Leader()), "k", "v")
	fourth, fifth := c.Grow(), c.Grow()
	awaitVoters(t, c, c.Servers...)
	require.Equal(t, "v", get(t, c.Client(fifth), "k", registryv1.ReadMode_READ_MODE_LINEARIZABLE))

	// Every server finds the newcomers' gRPC faces: a new one leads and the others bring writes
	// there.
	cl := c.Client(c.Servers[0])
	moved, err := cl.Operator.TransferLeadership(cl.Ctx(), &registryv1.TransferLeadershipRequest{Id: fifth.ID()})
	require.NoError(t, err)
	require.Equal(t, fifth.ID(), moved.GetTo())
	for i, s := range c.Servers {
		set(t, c.Client(s), fmt.Sprintf("from/%d", i), "v")
	}

	// The leader is removed: it hands over first, and stays out until it is taken back.
	removed, err := cl.Operator.RemovePeer(cl.Ctx(), &registryv1.RemovePeerRequest{Id: fifth.ID()})
	require.NoError(t, err)
	require.NotEqual(t, fifth.ID(), removed.GetLeader())
	rest := slices.DeleteFunc(slices.Clone(c.Servers), func(s *registrytest.Server) bool { return s == fifth })
	awaitVoters(t, c, rest...)
	fifth.Stop()
	fifth.Start()
	c.Eventually(func() error {
		if err := fifth.Ready(); err == nil || !strings.Contains(err.Error(), "an operator removed") {
			return fmt.Errorf("the removed server: %w", err)
		}
		return nil
	})
	awaitVoters(t, c, rest...)
	_, err = cl.Operator.RemovePeer(cl.Ctx(), &registryv1.RemovePeerRequest{Id: fifth.ID()})
	require.Equal(t, fault.NotFound, fault.CodeOf(err))
	added, err := cl.Operator.AddPeer(cl.Ctx(), &registryv1.AddPeerRequest{Address: fifth.Address()})
	require.NoError(t, err)
	require.Equal(t, fifth.ID(), added.GetMember().GetId())
	awaitVoters(t, c, c.Servers...)
	_, err = cl.Operator.AddPeer(cl.Ctx(), &registryv1.AddPeerRequest{Address: fourth.Address()})
	require.Equal(t, "ALREADY_A_MEMBER", fault.ReasonOf(err))
}

func TestAServerIsNotRemovedWhenTheRestWouldNotWork(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	leader, follower := c.Leader(), c.Follower()
	follower.Kill()
	cl := c.Client(leader)
	for _, s := range c.Servers {
		if s != follower {
			_, err := cl.Operator.RemovePeer(cl.Ctx(), &registryv1.RemovePeerRequest{Id: s.ID()})
			require.Equal(t, "WOULD_LOSE_QUORUM", fault.ReasonOf(err), "%v", err)
			require.ErrorContains(t, err, "1 of 2 voters would answer")
		}
	}
	_, err := cl.Operator.RemovePeer(cl.Ctx(), &registryv1.RemovePeerRequest{Id: follower.ID()})
	require.NoError(t, err, "the dead one may go")
	set(t, cl, "k", "v")

	alone := registrytest.StartCluster(t, 1)
	cl = alone.Client(alone.Servers[0])
	_, err = cl.Operator.RemovePeer(cl.Ctx(), &registryv1.RemovePeerRequest{Id: alone.Servers[0].ID()})
	require.Equal(t, "WOULD_LOSE_QUORUM", fault.ReasonOf(err))
}

func TestAutopilotBuriesTheDeadButNeverBelowItsQuorum(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, 3, registrytest.Options{})
	hurry(t, c, 3)
	fourth := c.Grow()
	awaitVoters(t, c, c.Servers...)
	if c.Leader() == fourth {
		cl := c.Client(fourth)
		_, err := cl.Operator.TransferLeadership(cl.Ctx(), &registryv1.TransferLeadershipRequest{})
		require.NoError(t, err)
	}
	fourth.Kill()
	awaitVoters(t, c, c.Servers[:3]...)

	dead := c.Follower()
	dead.Kill()
	cl := c.Client(c.Leader())
	c.Eventually(func() error {
		state, err := cl.Operator.GetAutopilotState(cl.Ctx(), &registryv1.GetAutopilotStateRequest{})
		if err != nil {
			return err
		}
		for _, s := range state.GetServers() {
			if s.GetId() == dead.ID() && s.GetNodeStatus() == "failed" && !s.GetHealthy() && !state.GetHealthy() && state.GetFailureTolerance() == 0 {
				return nil
			}
		}
		return fmt.Errorf("not dead yet: %v", state)
	})
	// Two rounds of autopilot later it is still a member.
	registrytest.Throughout(t, 5*time.Second, func() error {
		got, err := peers(cl)
		if err == nil && len(got) != 3 {
			err = fmt.Errorf("%d members", len(got))
		}
		return err
	})
	dead.Start()
	c.Eventually(func() error {
		state, err := cl.Operator.GetAutopilotState(cl.Ctx(), &registryv1.GetAutopilotStateRequest{})
		if err == nil && (!state.GetHealthy() || state.GetFailureTolerance() != 1) {
			err = fmt.Errorf("not healthy: %v", state)
		}
		return err
	})
	// The buried one may come back: nobody removed it on purpose.
	fourth.Start()
	awaitVoters(t, c, c.Servers...)
}

func TestAutopilotSettingsAreReplicatedAndChecked(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	cl := c.Client(c.Follower())
	read := func() *registryv1.GetAutopilotConfigResponse {
		resp, err := cl.Operator.GetAutopilotConfig(cl.Ctx(), &registryv1.GetAutopilotConfigRequest{})
		require.NoError(t, err)
		return resp
	}
	before := read()
	require.Zero(t, before.GetModifyIndex())
	require.EqualValues(t, 3, before.GetConfig().GetMinQuorum())
	changed, err := cl.Operator.SetAutopilotConfig(cl.Ctx(), &registryv1.SetAutopilotConfigRequest{
		Config: &registryv1.AutopilotConfig{MinQuorum: proto.Uint32(5), CleanupDeadServers: proto.Bool(false)}, Cas: proto.Uint64(0),
	})
	require.NoError(t, err)
	after := read()
	require.Equal(t, changed.GetModifyIndex(), after.GetModifyIndex())
	require.EqualValues(t, 5, after.GetConfig().GetMinQuorum())
	require.False(t, after.GetConfig().GetCleanupDeadServers())
	require.Equal(t, before.GetConfig().GetServerStabilizationTime().AsDuration(), after.GetConfig().GetServerStabilizationTime().AsDuration(), "the rest stays")
	_, err = cl.Operator.SetAutopilotConfig(cl.Ctx(), &registryv1.SetAutopilotConfigRequest{
		Config: &registryv1.AutopilotConfig{MinQuorum: proto.Uint32(3)}, Cas: proto.Uint64(0),
	})
	require.Equal(t, "SETTING_CHANGED", fault.ReasonOf(err))
	_, err = cl.Operator.SetAutopilotConfig(cl.Ctx(), &registryv1.SetAutopilotConfigRequest{Config: &registryv1.AutopilotConfig{
		MinQuorum: proto.Uint32(0),
	}})
	require.ErrorContains(t, err, "config.min_quorum")
	for _, s := range c.Servers {
		s.Kill()
	}
	for _, s := range c.Servers {
		s.Start()
	}
	c.WaitReady()
	require.EqualValues(t, 5, read().GetConfig().GetMinQuorum())
}

func TestTheSameIDTwiceIsRefused(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	awaitVoters(t, c, c.Servers...)
	other := registrytest.Prepare(t, 1, registrytest.Options{CA: c.CA, Adjust: func(cfg *registry.Config) {
		cfg.Registry.Servers, cfg.Registry.Join = nil, c.Addresses()
		cfg.Registry.ID = c.Follower().ID()
	}})
	other.Servers[0].Start()
	refused := func(text string) {
		c.Eventually(func() error {
			if err := other.Servers[0].Ready(); err == nil || !strings.Contains(err.Error(), text) {
				return fmt.Errorf("the second of its name: %w", err)
			}
			return nil
		})
		awaitVoters(t, c, c.Servers...)
		other.Servers[0].Kill()
	}
	refused("is alive elsewhere")
	for _, s := range []*registrytest.Server{c.Leader(), c.Follower()} {
		other.Servers[0].Wipe()
		other.Servers[0].Configure(func(cfg *registry.Config) {
			cfg.Registry.ID, cfg.Registry.RaftAdvertise = "another", s.RaftAddress()
		})
		other.Servers[0].Start()
		refused(s.ID() + " is alive at")
	}
}

func TestACommandWaitsUntilEveryServerUnderstandsIt(t *testing.T) {
	t.Parallel()
	c := registrytest.Prepare(t, 3, registrytest.Options{})
	old := c.Servers[1]
	old.Understands = 1
	for _, s := range c.Servers {
		s.Start()
	}
	c.WaitReady()
	awaitVoters(t, c, c.Servers...)
	got, err := peers(c.Client(c.Leader()))
	require.NoError(t, err)
	require.EqualValues(t, 1, got[old.ID()].GetCommandVersion())

	propose := func(version uint32) error {
		command, err := proto.Marshal(&registryv1.Command{RequestId: uuid.NewString(), Operations: []*registryv1.Operation{{
			Op: &registryv1.Operation_Put{Put: &registryv1.Record{Table: registryv1.Table_TABLE_KV, Key: "local/k"}},
		}}})
		require.NoError(t, err)
		leader := c.ClientAs(c.Leader(), c.DC, "registry")
		resp, err := leader.Proposals.Propose(leader.Bare(), &registryv1.ProposeRequest{Proposals: []*registryv1.Proposal{{Command: command, Version: version}}})
		if err != nil {
			return err
		}
		return rpc.FromStatus(status.ErrorProto(resp.GetOutcomes()[0].GetStatus()))
	}
	c.Eventually(func() error { return propose(1) })
	err = propose(2)
	require.Equal(t, fault.FailedPrecondition, fault.CodeOf(err), "%v", err)
	require.Equal(t, "SERVERS_TOO_OLD", fault.ReasonOf(err))
	require.ErrorContains(t, err, old.ID())

	// What a caller asked under a request id, and that an id was minted, are not noted while a
	// server does not know of it, and are no reason to refuse a write.
	cl := c.Client(c.Leader())
	again := &registryv1.SetRequest{Key: "again", Value: []byte("1"), RequestId: "r"}
	_, err = cl.KV.Set(cl.Ctx(), again)
	require.NoError(t, err)
	_, err = cl.KV.Set(cl.Ctx(), &registryv1.SetRequest{Key: "minted", Value: []byte("1")})
	require.NoError(t, err)

	old.Stop()
	old.Understands = 0
	old.Start()
	c.WaitReady()
	c.Eventually(func() error { return propose(2) })

	// From here on commands of the newest version may be in the log: a new server must understand
	// them.
	newest := fmt.Sprintf("understands commands up to version 1, the members up to %d", fsm.Version)
	late := c.Prepare()
	late.Understands = 1
	late.Start()
	c.Eventually(func() error {
		if err := late.Ready(); err == nil || !strings.Contains(err.Error(), newest) {
			return fmt.Errorf("the older server: %w", err)
		}
		return nil
	})
}

// TestATransferSaysWhoLedAndWhoLeads whichever server is asked: one that does not lead sees the
// leader move while it waits for the answer, and must not begin another transfer.
func TestATransferSaysWhoLedAndWhoLeads(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	for i := range 12 {
		before, asked := c.Leader(), c.Servers[i%3]
		req := &registryv1.TransferLeadershipRequest{}
		if i%2 == 0 {
			req.Id = c.Follower().ID()
		}
		moved, err := c.Client(asked).Operator.TransferLeadership(c.Client(asked).Ctx(), req)
		require.NoError(t, err)
		require.Equal(t, before.ID(), moved.GetFrom(), "round %d, asked %s for %q", i, asked.ID(), req.GetId())
		require.NotEqual(t, moved.GetFrom(), moved.GetTo())
		if req.GetId() != "" {
			require.Equal(t, req.GetId(), moved.GetTo())
		}
		require.Equal(t, moved.GetTo(), c.Leader().ID(), "round %d", i)
	}
}
