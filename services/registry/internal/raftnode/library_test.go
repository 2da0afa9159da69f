package raftnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/coalesce"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/lifecycle"
	"konsul.dev/services/registry/internal/readlease"
)

// The tests in this file pin what raftnode assumes of the Raft library beyond its documentation.
// They run the library over transports in memory.

// slowDisk is a log whose writes can be held up.
type slowDisk struct {
	*raft.InmemStore
	parallel *parallelWriter
	held     sync.Mutex
}

func (d *slowDisk) StoreLog(log *raft.Log) error { return d.StoreLogs([]*raft.Log{log}) }

func (d *slowDisk) StoreLogs(logs []*raft.Log) error {
	return d.parallel.write(logs, func(logs []*raft.Log) error {
		d.held.Lock()
		defer d.held.Unlock()
		return d.InmemStore.StoreLogs(logs)
	})
}

// late keeps the answers of some servers until it is over.
type late struct {
	from string
	over chan struct{}
}

// wire counts the messages with entries, and holds back answers to those without if it is told to.
type wire struct {
	network
	entries atomic.Int32
	// asked counts messages to s3.
	asked atomic.Int32
	// late, if set, keeps answers to what was asked while it is set.
	late atomic.Pointer[late]
}

func (w *wire) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	late := w.late.Load()
	if id == "s3" {
		w.asked.Add(1)
	}
	err := w.network.AppendEntries(id, target, args, resp)
	if len(args.Entries) > 0 {
		w.entries.Add(1)
	}
	if late != nil && strings.Contains(late.from, string(id)) {
		<-late.over
	}
	return err
}

// counting is a state machine that counts commands.
type counting struct {
	commands atomic.Int32
	commits  *commits
}

func (c *counting) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("none") }
func (c *counting) Restore(io.ReadCloser) error         { return errors.New("none") }

func (c *counting) Apply(entry *raft.Log) any {
	c.commits.note(entry.Index, entry.Term)
	return c.commands.Add(1)
}

// libraryServer is a server of the bare Raft library with a parallel writer, whose commits nobody
// broadcasts yet.
type libraryServer struct {
	*raft.Raft
	fsm   counting
	disk  *slowDisk
	wire  *wire
	inmem *raft.InmemTransport
}

// node returns what Node needs to answer for the server.
func (s *libraryServer) node(t *testing.T, timing Timing) *Node {
	t.Helper()
	n := &Node{
		config: Config{ID: string(s.disk.parallel.self.ID), Timing: timing}, raft: s.Raft, parallel: s.disk.parallel, commits: s.fsm.commits,
		heartbeats:  map[string]*coalesce.Rounds[uint64]{},
		leaderLease: readlease.NewLeader(readlease.Monotonic(), timing.Lease, timing.Heartbeat),
		group:       lifecycle.NewGroup(slog.New(slog.DiscardHandler), func(error) {}),
	}
	n.readyTerm.Store(s.CurrentTerm())
	t.Cleanup(func() { require.NoError(t, n.group.Stop(context.Background())) })
	return n
}

// startLibrary starts three servers. The first one has other timing and becomes the leader.
func startLibrary(t *testing.T, first, others Timing) []*libraryServer {
	t.Helper()
	var servers []*libraryServer
	var members raft.Configuration
	for i := range 3 {
		id := fmt.Sprintf("s%d", i+1)
		members.Servers = append(members.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
		_, inmem := raft.NewInmemTransport(raft.ServerAddress(id))
		s := &libraryServer{inmem: inmem, wire: &wire{network: inmem}, fsm: counting{commits: newCommits()}}
		s.disk = &slowDisk{InmemStore: raft.NewInmemStore(), parallel: newParallelWriter(Config{ID: id, Advertise: id})}
		s.disk.parallel.network = s.wire
		servers = append(servers, s)
	}
	for i, s := range servers {
		for _, peer := range servers {
			s.inmem.Connect(peer.inmem.LocalAddr(), peer.inmem)
		}
		timing := others
		if i == 0 {
			timing = first
		}
		c := raftConfig(Config{ID: string(members.Servers[i].ID), Timing: timing, TrailingLogs: 1 << 10, SnapshotEvery: 1 << 10}, slog.New(slog.DiscardHandler), make(chan bool, notifyBuffer), false)
		c.CommitTimeout = time.Hour
		r, err := raft.NewRaft(c, &s.fsm, s.disk, s.disk, raft.NewInmemSnapshotStore(), s.disk.parallel)
		require.NoError(t, err)
		s.Raft = r
		s.disk.parallel.raft.Store(r)
		require.NoError(t, r.BootstrapCluster(members).Error())
		t.Cleanup(func() {
			require.NoError(t, r.Shutdown().Error())
			s.disk.parallel.sends.Wait()
		})
	}
	p := servers[0].disk.parallel
	require.NoError(t, p.TimeoutNow(p.self.ID, p.self.Address, &raft.TimeoutNowRequest{RPCHeader: p.header()}, &raft.TimeoutNowResponse{}))
	require.Eventually(t, func() bool { return servers[0].State() == raft.Leader }, 5*time.Second, time.Millisecond, "TimeoutNow makes it stand for election")
	return servers
}

// What parallelWriter assumes of the library: the log is handed entries with their term and index,
// in order and before the library sends them; the library's requests look as ours do; its answer is
// taken for the follower's; and the leader counts itself only when its disk has the entry.
func TestParallelWriteHoldsWithTheRaftLibrary(t *testing.T) {
	t.Parallel()
	timing := Timing{Heartbeat: 5 * time.Second, Election: 5 * time.Second, Lease: 5 * time.Second}
	servers := startLibrary(t, timing, timing)
	leader := servers[0]
	require.NoError(t, leader.Apply(nil, 0).Error(), "followers have the log so far")
	for _, f := range servers[1:] {
		require.Eventually(t, func() bool { return f.LastIndex() == leader.LastIndex() }, 5*time.Second, time.Millisecond)
	}
	p := leader.disk.parallel
	require.Eventually(t, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.followers["s2"].match == p.tail && p.followers["s3"].match == p.tail
	}, 5*time.Second, time.Millisecond, "the library told it what they took")

	before, sent := leader.CommitIndex(), leader.wire.entries.Load()
	leader.disk.held.Lock()
	written := leader.Apply([]byte("x"), 0)
	for _, f := range servers[1:] {
		require.Eventually(t, func() bool { return f.LastIndex() == before+1 }, 5*time.Second, time.Millisecond,
			"a follower has the entry while the leader's disk is busy")
	}
	require.Equal(t, before, leader.CommitIndex(), "the leader counts itself once it has it")
	leader.disk.held.Unlock()
	require.NoError(t, written.Error())
	require.Eventually(t, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return !p.followers["s2"].unread && !p.followers["s3"].unread
	}, 5*time.Second, time.Millisecond, "the library comes to send it")
	require.EqualValues(t, 2, leader.wire.entries.Load()-sent, "each follower got the entry once")
}

// What the commit-index broadcast assumes of the library: a follower takes the commit index of a
// message without entries.
func TestFollowersLearnTheLastCommitFromTheBroadcastAlone(t *testing.T) {
	t.Parallel()
	timing := Timing{Heartbeat: 5 * time.Second, Election: 5 * time.Second, Lease: 5 * time.Second}
	servers := startLibrary(t, timing, timing)
	leader := servers[0]
	n := leader.node(t, timing)
	n.group.Go("broadcast", n.broadcastCommits)
	for i := range 3 {
		require.NoError(t, leader.Apply([]byte("x"), 0).Error())
		for _, f := range servers {
			require.Eventually(t, func() bool { return f.fsm.commands.Load() == int32(i+1) }, 5*time.Second, time.Millisecond) //nolint:gosec // a small number
		}
	}
}

// A leader whose clock stood still, as that of a paused one, finds answers that came before it was
// replaced.
func TestAnAnswerFromBeforeTheCallDoesNotVerifyTheLeader(t *testing.T) {
	t.Parallel()
	slow := Timing{Heartbeat: 4 * time.Second, Election: 4 * time.Second, Lease: 4 * time.Second}
	servers := startLibrary(t, slow, Timing{Heartbeat: time.Second, Election: time.Second, Lease: time.Second})
	old := servers[0]
	n := old.node(t, slow)
	require.NoError(t, n.VerifyLeader(t.Context()))
	require.NoError(t, n.EnsureLease(t.Context()))

	answers := &late{from: "s2 s3", over: make(chan struct{})}
	old.wire.late.Store(answers)
	old.Apply([]byte("x"), 0)
	for _, f := range servers[1:] {
		require.Eventually(t, func() bool { return f.LastIndex() == old.LastIndex() }, 5*time.Second, time.Millisecond)
		f.inmem.Disconnect(old.inmem.LocalAddr())
	}
	old.inmem.DisconnectAll()
	require.Eventually(t, func() bool { return servers[1].State() == raft.Leader || servers[2].State() == raft.Leader }, 5*time.Second, time.Millisecond)
	require.Equal(t, raft.Leader, old.State(), "it does not know")

	verified := make(chan error, 1)
	go func() { verified <- n.VerifyLeader(t.Context()) }()
	close(answers.over)
	require.Equal(t, fault.ReasonNoLeader, fault.ReasonOf(<-verified))
}

// A follower that is paused holds up one heartbeat, however many reads ask for confirmation.
func TestAPausedFollowerHoldsUpOneHeartbeat(t *testing.T) {
	t.Parallel()
	timing := Timing{Heartbeat: 5 * time.Second, Election: 5 * time.Second, Lease: 5 * time.Second}
	leader := startLibrary(t, timing, timing)[0]
	n := leader.node(t, timing)
	require.NoError(t, n.VerifyLeader(t.Context()))
	paused := &late{from: "s3", over: make(chan struct{})}
	leader.wire.late.Store(paused)
	defer close(paused.over)
	before := leader.wire.asked.Load()
	for range 200 {
		require.NoError(t, n.VerifyLeader(t.Context()))
	}
	require.Less(t, leader.wire.asked.Load()-before, int32(10), "the library sends a few, too")
}
