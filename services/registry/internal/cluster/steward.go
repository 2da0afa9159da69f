package cluster

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/raftnode"
)

// Lead looks after the membership until ctx ends. Leader only.
func (c *Cluster) Lead(ctx context.Context) { c.Node.Autopilot(ctx, c) }

// Autopilot implements raftnode.Steward.
func (c *Cluster) Autopilot() raftnode.AutopilotConfig {
	s, _ := c.Rows.Autopilot()
	return raftnode.AutopilotConfig{
		CleanupDeadServers: s.GetCleanupDeadServers(), DeadServerAfter: s.GetDeadServerAfter().AsDuration(), MinQuorum: uint(s.GetMinQuorum()),
		LastContactThreshold: s.GetLastContactThreshold().AsDuration(), MaxTrailingLogs: s.GetMaxTrailingLogs(),
		ServerStabilizationTime: s.GetServerStabilizationTime().AsDuration(),
	}
}

// Ask implements raftnode.Steward.
func (c *Cluster) Ask(ctx context.Context, id string) (raftnode.Stats, error) {
	if id == c.Own.GetId() {
		status := c.Node.Status()
		return raftnode.Stats{LastTerm: status.LastTerm, LastIndex: status.LastIndex, Version: c.Own.GetVersion()}, nil
	}
	conn, err := c.Peers.Server(id)
	if err != nil {
		return raftnode.Stats{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	resp, err := registryv1.NewOperatorServiceClient(conn).ServerStatus(ctx, &registryv1.ServerStatusRequest{})
	if err != nil {
		return raftnode.Stats{}, err
	}
	s := resp.GetServer()
	stats := raftnode.Stats{LastContact: s.GetLastContact().AsDuration(), LastTerm: s.GetLastLogTerm(), LastIndex: s.GetLastLogIndex(), Version: s.GetVersion()}
	if s.GetLastContact() == nil {
		stats.LastContact = -1 // It never heard from this leader.
	}
	return stats, nil
}

// Health returns what the leader thinks of every server, nil while this one does not lead or has
// not looked yet.
func (c *Cluster) Health() *registryv1.GetAutopilotStateResponse {
	state, ok := c.Node.AutopilotState()
	if !ok {
		return nil
	}
	resp := &registryv1.GetAutopilotStateResponse{
		Healthy: state.Healthy, FailureTolerance: uint32(state.FailureTolerance), Leader: c.Node.LeaderID(), //nolint:gosec // a handful
	}
	for _, h := range state.Servers {
		if h.Voter {
			resp.Voters = append(resp.Voters, h.ID)
		}
		resp.Servers = append(resp.Servers, &registryv1.ServerHealth{
			Id: h.ID, Address: h.Address, State: h.State, NodeStatus: h.NodeStatus, Version: h.Stats.Version,
			LastContact: durationpb.New(max(h.Stats.LastContact, 0)), LastLogTerm: h.Stats.LastTerm, LastLogIndex: h.Stats.LastIndex,
			Healthy: h.Healthy, StableSince: timestamppb.New(h.StableSince),
		})
	}
	return resp
}

// Bury implements raftnode.Steward. The row stays: a server that comes back after all is known by
// it.
func (c *Cluster) Bury(id string) {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), changeTimeout)
		defer cancel()
		c.change.Lock()
		defer c.change.Unlock()
		err := c.Node.Remove(ctx, id)
		c.Log.Warn("removed a dead server", "server", id, "dead_after", c.Autopilot().DeadServerAfter.Round(time.Second), "error", err)
	}()
}
