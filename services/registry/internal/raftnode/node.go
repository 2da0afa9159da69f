package raftnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"konsul.dev/pkg/coalesce"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/lifecycle"
	"konsul.dev/services/registry/internal/readlease"
	"konsul.dev/services/registry/internal/record"
)

// Node is one server of the cluster. Make one with Start, end it with Stop.
type Node struct {
	config  Config
	raft    *raft.Raft
	log     *slog.Logger
	metrics *Metrics
	lock    *os.File
	logs    *logStore
	network *streams
	group   *lifecycle.Group
	lead    func(context.Context, *Node)
	// fresh says that the server started without Raft state.
	fresh bool
	disk  atomic.Pointer[Disk]
	pilot pilot
	// patience bounds the wait for the Raft loop's end after its connections have ended.
	patience time.Duration

	parallel    *parallelWriter
	commits     *commits
	leaderLease *readlease.Leader
	lessor      *readlease.Lessor

	// readyTerm is the term in which this server leads and has applied all that came before.
	readyTerm atomic.Uint64
	verify    coalesce.Rounds[struct{}]
	// heartbeats are those by which verify asks, by server. Only a round of verify uses it.
	heartbeats map[string]*coalesce.Rounds[uint64]
	refusal    atomic.Pointer[refusal]
	queue      *coalesce.Queue[waiting]
	stamp      func() (time.Time, uint64)
	admit      func(version uint32) error
}

const (
	snapshotsKept = 2
	// logCache entries of up to entryBytes each are kept for followers that are almost up to date.
	logCache     = 64
	notifyBuffer = 16
)

// Start opens the log and binds the listener; it does not wait for a leader. A server with state
// takes its place in the cluster it was in when Open is called; one without waits for Found, or for
// a leader that adds it, and is silent to peers until Open.
func Start(p Params) (_ *Node, err error) {
	if err := os.MkdirAll(p.Config.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make raft folder: %w", err)
	}
	clock := readlease.Monotonic()
	n := &Node{
		config: p.Config, log: p.Log, metrics: p.Metrics, lead: p.Lead,
		stamp: p.Stamp, admit: p.Admit, patience: shutdownLimit, group: lifecycle.NewGroup(p.Log, p.Fatal), commits: newCommits(), heartbeats: map[string]*coalesce.Rounds[uint64]{},
		leaderLease: readlease.NewLeader(clock, p.Config.Timing.Lease, p.Config.Timing.Heartbeat),
		lessor:      readlease.NewLessor(clock, p.Config.ReadLease, p.Recall, p.Metrics.readLease),
	}
	if n.lock, err = lock(p.Config.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.release())
		}
	}()
	disk, err := openDisk(p.Config.Dir, p.Config.ID)
	if err != nil {
		return nil, err
	}
	n.disk.Store(&disk)
	if n.logs, err = openLog(p.Config, p.Step, p.Log); err != nil {
		return nil, err
	}
	n.parallel = n.logs.parallel
	n.queue = n.newQueue()
	notify := make(chan bool, notifyBuffer)
	if err := n.open(p, notify); err != nil {
		return nil, err
	}
	n.group.Go("raft log size", n.limitSpace)
	n.group.Go("raft leadership", func(ctx context.Context) error { return n.observe(ctx, notify) })
	return n, nil
}

// release gives back what was opened, as far as Start came.
func (n *Node) release() error {
	var errs []error
	if n.network != nil {
		errs = append(errs, n.network.Close())
	}
	if n.logs != nil {
		errs = append(errs, n.logs.Close())
	}
	return errors.Join(append(errs, n.lock.Close())...)
}

func (n *Node) open(p Params, notify chan<- bool) error {
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(p.Config.Dir, snapshotsKept, newLogger(p.Log))
	if err != nil {
		return fmt.Errorf("open snapshots in %q: %w", p.Config.Dir, err)
	}
	has, err := raft.HasExistingState(n.logs, n.logs, snapshots)
	if err != nil {
		return fmt.Errorf("look for raft state: %w", err)
	}
	n.fresh = !has
	if n.fresh && p.Store.Applied() > 0 {
		return record.Damaged("the store has data up to index %d, and the raft folder %q is empty", p.Store.Applied(), p.Config.Dir)
	}
	restore, err := mustRestore(snapshots, n.logs, p.Store.Applied())
	if err != nil {
		return err
	}
	if n.network, err = listen(p.Config, p.Identity, p.Metrics); err != nil {
		return err
	}
	n.network.moved = p.Moved
	cache, err := raft.NewLogCache(logCache, n.logs)
	if err != nil {
		return fmt.Errorf("make log cache: %w", err)
	}
	if err := p.Store.View(p.Machine.Load); err != nil {
		return err
	}
	sm := &machine{store: p.Store, fsm: p.Machine, sink: p.Sink, metrics: p.Metrics, fatal: p.Fatal, step: p.Step, applied: n.commits.note, first: n.logs.FirstIndex}
	if !restore {
		if err := sm.catchUp(n.logs, p.Store.Reached()); err != nil {
			return err
		}
	}
	watched := &snapshotStore{SnapshotStore: snapshots, applied: p.Store.Applied, hangUp: n.network.hangUp, log: p.Log}
	n.parallel.network = newTransport(n.network, p.Log)
	n.raft, err = raft.NewRaft(raftConfig(p.Config, p.Log, notify, restore), sm, cache, n.logs, watched, n.parallel)
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	n.parallel.raft.Store(n.raft)
	return nil
}

// mustRestore reports whether the store lacks commands that only the latest snapshot has.
func mustRestore(snapshots raft.SnapshotStore, logs *logStore, applied uint64) (bool, error) {
	list, err := snapshots.List()
	if err != nil {
		return false, fmt.Errorf("list snapshots: %w", err)
	}
	first, err := logs.FirstIndex()
	if err != nil {
		return false, fmt.Errorf("read first log index: %w", err)
	}
	known := applied
	if len(list) > 0 {
		known = max(known, list[0].Index)
	}
	if first > known+1 {
		return false, record.Damaged("the log begins at index %d, the state ends at %d: what is between is lost", first, known)
	}
	if len(list) == 0 || applied >= list[0].Index {
		return false, nil
	}
	// The snapshot's index may be that of an entry which is no command: those never reach the
	// store.
	if first == 0 || first > applied+1 {
		return true, nil
	}
	for index := applied + 1; index <= list[0].Index; index++ {
		var entry raft.Log
		if err := logs.GetLog(index, &entry); err != nil {
			return true, nil //nolint:nilerr // what the log does not have the snapshot has
		}
		if entry.Type == raft.LogCommand {
			return true, nil
		}
	}
	return false, nil
}

// observe follows this server in and out of leadership.
func (n *Node) observe(ctx context.Context, notify <-chan bool) error {
	endLead := func() {}
	defer func() { endLead() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case leads := <-notify:
			endLead()
			endLead = func() {}
			n.readyTerm.Store(0)
			n.metrics.leads(leads)
			if !leads {
				n.log.Info("no longer the leader")
				continue
			}
			if !n.settle(ctx) {
				continue
			}
			leadCtx, cancel := context.WithCancel(ctx)
			endLead = cancel
			n.group.Go("raft commit broadcast", func(context.Context) error { return n.broadcastCommits(leadCtx) })
			if n.lead != nil {
				n.group.Go("leader duties", func(context.Context) error {
					n.lead(leadCtx, n)
					return nil
				})
			}
		}
	}
}

const barrierTimeout = 10 * time.Second

// settle waits until everything committed in earlier terms is applied here: a leader that answers
// before would answer from the past.
func (n *Node) settle(ctx context.Context) bool {
	term := n.raft.CurrentTerm()
	done := make(chan error, 1)
	go func() { done <- n.raft.Barrier(barrierTimeout).Error() }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		n.log.Warn("lost leadership before it began", "error", err)
		return false
	}
	n.readyTerm.Store(term)
	n.log.Info("became the leader", "term", term)
	return true
}

// A Raft loop that waits for a peer in the middle of a message ends when its connections do; one
// that waits for its disk may never end.
const (
	shutdownGrace = 2 * time.Second
	shutdownLimit = 10 * time.Second
	// drainLimit bounds the wait for entries that are on their way: the library never answers those
	// that it had committed and not applied when it was told to end.
	drainLimit = 500 * time.Millisecond
)

// ReasonStuck says that a server's Raft loop did not end when it was told to.
const ReasonStuck = "RAFT_STUCK"

// Stop leaves the network and closes the log. The store stays open. It is bounded whatever ctx is:
// when the Raft library does not end, the log is left open, and the folder locked, for it still
// writes there.
func (n *Node) Stop(ctx context.Context) error {
	n.drain()
	down := make(chan error, 1)
	future := n.raft.Shutdown()
	go func() { down <- future.Error() }()
	var errs []error
	select {
	case err := <-down:
		errs = append(errs, err, n.network.Close())
	case <-time.After(shutdownGrace):
		errs = append(errs, n.network.Close())
		select {
		case err := <-down:
			errs = append(errs, err)
		case <-time.After(n.patience):
			stacks := make([]byte, 1<<20)
			n.log.Error("the Raft loop did not end", "goroutines", string(stacks[:runtime.Stack(stacks, true)]))
			return fault.New(fault.Internal, ReasonStuck, "the Raft loop of %s did not end within %v", n.config.ID, shutdownGrace+n.patience).
				WithRemedy("look for a disk that does not answer; end the process")
		}
	}
	n.parallel.sends.Wait()
	n.readyTerm.Store(0)
	return errors.Join(append(errs, n.group.Stop(ctx), n.logs.Close(), n.lock.Close())...)
}

func (n *Node) drain() {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(drainLimit); n.queue.Held() > 0 && time.Now().Before(end); {
		<-tick.C
	}
}

// handOverLimit bounds the wait for a successor.
const handOverLimit = 3 * time.Second

// HandOver makes another server the leader if this one is, and waits until it is or ctx ends, but
// not for long: a cluster that is told does not have to notice.
func (n *Node) HandOver(ctx context.Context) {
	voters := 0
	for _, s := range n.Servers() {
		if s.Voter {
			voters++
		}
	}
	if ctx.Err() != nil || n.raft.State() != raft.Leader || voters == 1 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handOverLimit)
	defer cancel()
	if err := n.Transfer(ctx, ""); err != nil {
		n.log.Warn("could not hand leadership over", "error", err)
	}
}
