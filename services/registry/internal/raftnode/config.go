package raftnode

import (
	"context"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"konsul.dev/pkg/identity"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/badgerstore"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/member"
	"konsul.dev/services/registry/internal/readlease"
	"konsul.dev/services/registry/internal/steps"
)

// Server is a member of the cluster.
type Server = member.Server

// Timing decides how fast a lost leader is noticed.
type Timing struct {
	// Heartbeat is how long a follower goes without its leader before it asks for an election.
	Heartbeat time.Duration
	// Election is how long a candidate waits for votes.
	Election time.Duration
	// Lease is how long a leader goes without a majority before it steps down; less than Heartbeat.
	Lease time.Duration
}

// DefaultTiming replaces a leader whose process died in about nine tenths of a second: the library
// notices after one to two heartbeat timeouts on each follower, and two of three servers must
// notice. With 300 ms, two processors that wrote as fast as they could elected a dozen leaders in
// two minutes.
func DefaultTiming() Timing {
	return Timing{Heartbeat: 400 * time.Millisecond, Election: 400 * time.Millisecond, Lease: 350 * time.Millisecond}
}

// Config is what a node is made of.
type Config struct {
	ID string
	// Listen is where to bind, host:port; Advertise is how the others reach it.
	Listen, Advertise string
	// Dir holds the log and the snapshots.
	Dir    string
	Timing Timing
	// SnapshotEvery is how many log entries make a snapshot worth while.
	SnapshotEvery uint64
	// TrailingLogs is how many entries stay behind a snapshot, for followers that lag a little.
	TrailingLogs uint64
	// SnapshotBytes is how much log makes a snapshot worth while, however few its entries.
	SnapshotBytes uint64
	// TrailingBytes is about how much log stays behind such a snapshot at most.
	TrailingBytes uint64
	// SegmentBytes is the size of a log segment.
	SegmentBytes int
	// MaxInFlight bounds the writes that wait for their outcome.
	MaxInFlight int
	// MaxInFlightBytes bounds what those writes weigh together.
	MaxInFlightBytes int
	// ReadLease is how long another server may answer default reads by itself, and with it how long
	// a write waits for one that died; zero: never.
	ReadLease time.Duration
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
	Config Config
	Store  *badgerstore.Store
	// Machine applies the log to Store; the node loads it.
	Machine  *fsm.Machine
	Sink     Sink
	Identity identity.Source
	Metrics  *Metrics
	Log      *slog.Logger
	// Step, if set, is told of what is done to the log and the snapshots.
	Step steps.Hook
	// Fatal is called, once, when the state machine cannot go on.
	Fatal func(error)
	// Admit refuses commands of a version that a member does not understand.
	Admit func(version uint32) error
	// Stamp returns the time and the epoch an entry is proposed in.
	Stamp func() (time.Time, uint64)
	// Recall takes back read leases; nil: none are given.
	Recall readlease.Recall
	// Moved returns where a server is that the Raft configuration has at an address, false when it
	// is there; may be nil.
	Moved func(address string) (now string, moved bool)
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
	// Followers learn the last commit from the commit-index broadcast; this is for when its message
	// is lost.
	rc.CommitTimeout = 50 * time.Millisecond
	rc.MaxAppendEntries = 512
	rc.SnapshotThreshold = c.SnapshotEvery
	rc.SnapshotInterval = 15 * time.Second
	rc.TrailingLogs = c.TrailingLogs
	rc.NoSnapshotRestoreOnStart = !restore
	rc.NoLegacyTelemetry = true
	// A server that was removed goes on answering stale reads, and can be taken back.
	rc.ShutdownOnRemove = false
	rc.NotifyCh = notify
	rc.Logger = newLogger(log)
	return rc
}
