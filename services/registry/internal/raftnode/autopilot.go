package raftnode

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"
)

const (
	// healthInterval is how often the leader asks every server how it is; half of it bounds the
	// asking.
	healthInterval = time.Second
	// reconcileInterval is how often it promotes and removes servers.
	reconcileInterval = 2 * time.Second
)

// AutopilotConfig is by what the leader promotes and removes servers.
type AutopilotConfig struct {
	CleanupDeadServers bool
	// DeadServerAfter is how long a server must not have answered to be dead.
	DeadServerAfter         time.Duration
	MinQuorum               uint
	LastContactThreshold    time.Duration
	MaxTrailingLogs         uint64
	ServerStabilizationTime time.Duration
}

// Stats is what a server says of itself.
type Stats struct {
	LastContact time.Duration
	LastTerm    uint64
	LastIndex   uint64
	Version     string
}

// Steward is what the autopilot asks of its surroundings.
type Steward interface {
	Autopilot() AutopilotConfig
	// Ask returns what a server says of itself.
	Ask(ctx context.Context, id string) (Stats, error)
	// Bury removes a dead server. It must not block.
	Bury(id string)
}

// Health is what the leader thinks of a server.
type Health struct {
	Server
	// State is "leader", "voter" or "non-voter".
	State string
	// NodeStatus is "alive", or "failed" once it is dead.
	NodeStatus  string
	Stats       Stats
	Healthy     bool
	StableSince time.Time
}

// AutopilotState is what the leader thinks of the cluster.
type AutopilotState struct {
	Healthy bool
	// FailureTolerance is how many healthy voters may be lost without losing the majority.
	FailureTolerance int
	Servers          []Health
}

// pilot holds the autopilot while this server leads.
type pilot struct{ running atomic.Pointer[flight] }

type flight struct {
	steward Steward
	library *autopilot.Autopilot
	node    *Node

	mu    sync.Mutex
	heard map[raft.ServerID]heard
}

// heard is what was last heard of a server.
type heard struct {
	stats Stats
	// at is when it last answered, or when this leader began to ask.
	at time.Time
}

// Autopilot looks after the membership until ctx ends; it belongs to the leader.
func (n *Node) Autopilot(ctx context.Context, steward Steward) {
	f := &flight{steward: steward, node: n, heard: map[raft.ServerID]heard{}}
	f.library = autopilot.New(n.raft, f,
		autopilot.WithUpdateInterval(healthInterval), autopilot.WithReconcileInterval(reconcileInterval),
		autopilot.WithLogger(newLogger(n.log)))
	f.library.Start(ctx)
	n.pilot.running.Store(f)
	<-ctx.Done()
	n.pilot.running.CompareAndSwap(f, nil)
	select {
	case <-f.library.Stop():
	case <-time.After(membershipTimeout): // It waits for a change that the end of the Raft loop may have swallowed.
	}
}

// AutopilotState returns what the autopilot made of the cluster; false while it has not looked yet,
// or this server does not lead.
func (n *Node) AutopilotState() (AutopilotState, bool) {
	f := n.pilot.running.Load()
	if f == nil {
		return AutopilotState{}, false
	}
	state := f.library.GetState()
	if state == nil {
		return AutopilotState{}, false
	}
	out := AutopilotState{Healthy: state.Healthy, FailureTolerance: state.FailureTolerance}
	for _, s := range n.Servers() {
		known := state.Servers[raft.ServerID(s.ID)]
		if known == nil {
			continue
		}
		out.Servers = append(out.Servers, Health{
			Server: s, State: string(known.State), NodeStatus: string(known.Server.NodeStatus),
			Stats: Stats{
				LastContact: known.Stats.LastContact, LastTerm: known.Stats.LastTerm, LastIndex: known.Stats.LastIndex,
				Version: known.Server.Version,
			},
			Healthy: known.Health.Healthy, StableSince: known.Health.StableSince,
		})
	}
	return out, true
}

// AutopilotConfig implements autopilot.ApplicationIntegration.
func (f *flight) AutopilotConfig() *autopilot.Config {
	c := f.steward.Autopilot()
	return &autopilot.Config{
		CleanupDeadServers: c.CleanupDeadServers, LastContactThreshold: c.LastContactThreshold, MaxTrailingLogs: c.MaxTrailingLogs,
		MinQuorum: c.MinQuorum, ServerStabilizationTime: c.ServerStabilizationTime,
	}
}

// KnownServers implements autopilot.ApplicationIntegration. A server is alive until it has not
// answered for so long that it is dead: whether it is healthy is decided by what it says.
func (f *flight) KnownServers() map[raft.ServerID]*autopilot.Server {
	deadAfter := f.steward.Autopilot().DeadServerAfter
	leader := f.node.LeaderID()
	now := time.Now()
	out := map[raft.ServerID]*autopilot.Server{}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.node.Servers() {
		id := raft.ServerID(s.ID)
		known, met := f.heard[id]
		if !met {
			known = heard{at: now}
			f.heard[id] = known
		}
		status := autopilot.NodeAlive
		if s.ID != f.node.config.ID && now.Sub(known.at) > deadAfter {
			status = autopilot.NodeFailed
		}
		out[id] = &autopilot.Server{
			ID: id, Name: s.ID, Address: raft.ServerAddress(s.Address), NodeStatus: status, Version: known.stats.Version,
			IsLeader: s.ID == leader, NodeType: autopilot.NodeVoter,
		}
	}
	return out
}

// FetchServerStats implements autopilot.ApplicationIntegration. What a silent server last said is
// returned again with a contact that grows older.
func (f *flight) FetchServerStats(ctx context.Context, servers map[raft.ServerID]*autopilot.Server) map[raft.ServerID]*autopilot.ServerStats {
	var wg sync.WaitGroup
	for id := range servers {
		wg.Go(func() {
			stats, err := f.steward.Ask(ctx, string(id))
			f.mu.Lock()
			defer f.mu.Unlock()
			if err == nil {
				f.heard[id] = heard{stats: stats, at: time.Now()}
			}
		})
	}
	wg.Wait()
	out := map[raft.ServerID]*autopilot.ServerStats{}
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, h := range f.heard {
		if servers[id] == nil {
			delete(f.heard, id) // It left.
			continue
		}
		silent := time.Since(h.at)
		if silent < healthInterval {
			silent = 0
		}
		out[id] = &autopilot.ServerStats{LastContact: h.stats.LastContact + silent, LastTerm: h.stats.LastTerm, LastIndex: h.stats.LastIndex}
	}
	return out
}

// NotifyState implements autopilot.ApplicationIntegration.
func (f *flight) NotifyState(*autopilot.State) {}

// RemoveFailedServer implements autopilot.ApplicationIntegration.
func (f *flight) RemoveFailedServer(s *autopilot.Server) { f.steward.Bury(string(s.ID)) }
