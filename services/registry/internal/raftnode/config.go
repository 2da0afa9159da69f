package raftnode

import (
	"context"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"konsul.dev/pkg/identity"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/badgerstore"
)

// Server is a member of the cluster.
type Server struct {
	ID string
	// Address is where its Raft listener is reached, host:port.
	Address string
}

// Timing decides how fast a lost leader is noticed.
type Timing struct {
	// Heartbeat is how long a follower goes without its leader before it asks for an election.
	Heartbeat time.Duration
	// Election is how long a candidate waits for votes.
	Election time.Duration
	// Lease is how long a leader goes without a majority before it steps down; less than Heartbeat.
	Lease time.Duration
}

// DefaultTiming replaces a dead leader in about half a second, and survives pauses of a quarter.
func DefaultTiming() Timing {
	return Timing{Heartbeat: 300 * time.Millisecond, Election: 300 * time.Millisecond, Lease: 250 * time.Millisecond}
}

// Config is what a node is made of.
type Config struct {
	ID string
	// Listen is where to bind, host:port; Advertise is how the others reach it.
	Listen, Advertise string
	// Servers is the cluster at its first start, this server included, the same on every server.
	Servers []Server
	// Dir holds the log and the snapshots.
	Dir    string
	Timing Timing
	// SnapshotEvery is how many log entries make a snapshot worth while.
	SnapshotEvery uint64
	// TrailingLogs is how many entries stay behind a snapshot, for followers that lag a little.
	TrailingLogs uint64
	// SegmentBytes is the size of a log segment.
	SegmentBytes int
	// MaxInFlight bounds the writes that wait for their outcome.
	MaxInFlight int
}

// Sink learns what was committed, in order, from one goroutine, before the writers do.
type Sink interface {
	// Committed gets the rows a batch wrote. They are shared from here on.
	Committed(index uint64, rows []*registryv1.Record) error
	// Restored says that the store was replaced as a whole.
	Restored() error
}

// Params is what a node needs from its surroundings.
type Params struct {
	Config   Config
	Store    *badgerstore.Store
	Sink     Sink
	Identity identity.Source
	Metrics  *Metrics
	Log      *slog.Logger
	// Fatal is called, once, when the state machine cannot go on.
	Fatal func(error)
	// Lead is called when this server has become the leader and its state is up to date; ctx ends
	// when it is the leader no more.
	Lead func(ctx context.Context, n *Node)
}

func raftConfig(c Config, log *slog.Logger, notify chan<- bool, restore bool) *raft.Config {
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(c.ID)
	rc.HeartbeatTimeout = c.Timing.Heartbeat
	rc.ElectionTimeout = c.Timing.Election
	rc.LeaderLeaseTimeout = c.Timing.Lease
	rc.CommitTimeout = 20 * time.Millisecond
	rc.MaxAppendEntries = 512
	rc.SnapshotThreshold = c.SnapshotEvery
	rc.SnapshotInterval = 15 * time.Second
	rc.TrailingLogs = c.TrailingLogs
	rc.NoSnapshotRestoreOnStart = !restore
	rc.NoLegacyTelemetry = true
	rc.NotifyCh = notify
	rc.Logger = newLogger(log)
	return rc
}
