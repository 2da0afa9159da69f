package raftnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"konsul.dev/pkg/lifecycle"
)

// Node is one server of the cluster. Make one with Start, end it with Stop.
type Node struct {
	config  Config
	raft    *raft.Raft
	log     *slog.Logger
	metrics *Metrics
	logs    *logStore
	trans   *raft.NetworkTransport
	group   *lifecycle.Group
	lead    func(context.Context, *Node)

	// readyTerm is the term in which this server leads and has applied all that came before.
	readyTerm atomic.Uint64
	verify    rounds
	pending   chan waiting
	slots     chan struct{}
	done      chan struct{}
}

const (
	snapshotsKept = 2
	logCache      = 256
	notifyBuffer  = 16
)

// Start opens the log, binds the listener and joins the cluster; it does not wait for a leader.
func Start(p Params) (*Node, error) {
	if err := os.MkdirAll(p.Config.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make raft folder: %w", err)
	}
	logs, err := openLog(p.Config, p.Log)
	if err != nil {
		return nil, err
	}
	n := &Node{
		config: p.Config, log: p.Log, metrics: p.Metrics, logs: logs, lead: p.Lead,
		pending: make(chan waiting, p.Config.MaxInFlight), slots: make(chan struct{}, p.Config.MaxInFlight),
		done: make(chan struct{}), group: lifecycle.NewGroup(p.Log, p.Fatal),
	}
	notify := make(chan bool, notifyBuffer)
	if err := n.open(p, notify); err != nil {
		return nil, errors.Join(err, logs.Close())
	}
	n.group.Go("raft leadership", func(ctx context.Context) error { return n.observe(ctx, notify) })
	n.group.Go("raft outcomes", n.complete)
	return n, nil
}

func (n *Node) open(p Params, notify chan<- bool) error {
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(p.Config.Dir, snapshotsKept, newLogger(p.Log))
	if err != nil {
		return fmt.Errorf("open snapshots in %q: %w", p.Config.Dir, err)
	}
	restore, err := mustRestore(snapshots, n.logs, p.Store.Applied())
	if err != nil {
		return err
	}
	network, err := listen(p.Config, p.Identity)
	if err != nil {
		return err
	}
	n.trans = newTransport(network, p.Log)
	config := raftConfig(p.Config, p.Log, notify, restore)
	if err := bootstrap(config, p.Config, n.logs, snapshots, n.trans); err != nil {
		return errors.Join(err, n.trans.Close())
	}
	cache, err := raft.NewLogCache(logCache, n.logs)
	if err != nil {
		return errors.Join(fmt.Errorf("make log cache: %w", err), n.trans.Close())
	}
	sm := &machine{store: p.Store, sink: p.Sink, metrics: p.Metrics, fatal: p.Fatal}
	n.raft, err = raft.NewRaft(config, sm, cache, n.logs, snapshots, n.trans)
	if err != nil {
		return errors.Join(fmt.Errorf("start raft: %w", err), n.trans.Close())
	}
	return nil
}

// mustRestore says whether the store lacks commands that only the latest snapshot has.
func mustRestore(snapshots raft.SnapshotStore, logs *logStore, applied uint64) (bool, error) {
	list, err := snapshots.List()
	if err != nil {
		return false, fmt.Errorf("list snapshots: %w", err)
	}
	if len(list) == 0 || applied >= list[0].Index {
		return false, nil
	}
	// The snapshot's index may be that of an entry which is no command: those never reach the store.
	first, err := logs.FirstIndex()
	if err != nil {
		return false, fmt.Errorf("read first log index: %w", err)
	}
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

// bootstrap gives a server without any state the cluster's first configuration. Every server does so
// with the same one, which the Raft library documents as safe.
func bootstrap(config *raft.Config, c Config, logs *logStore, snapshots raft.SnapshotStore, trans raft.Transport) error {
	has, err := raft.HasExistingState(logs, logs, snapshots)
	if err != nil {
		return fmt.Errorf("look for raft state: %w", err)
	}
	if has {
		return nil
	}
	var first raft.Configuration
	for _, s := range c.Servers {
		first.Servers = append(first.Servers, raft.Server{ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Address)})
	}
	if err := raft.BootstrapCluster(config, logs, logs, snapshots, trans, first); err != nil {
		return fmt.Errorf("bootstrap raft: %w", err)
	}
	return nil
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
			if !n.settle() {
				continue
			}
			leadCtx, cancel := context.WithCancel(ctx)
			endLead = cancel
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
func (n *Node) settle() bool {
	term := n.raft.CurrentTerm()
	if err := n.raft.Barrier(barrierTimeout).Error(); err != nil {
		n.log.Warn("lost leadership before it began", "error", err)
		return false
	}
	n.readyTerm.Store(term)
	n.log.Info("became the leader", "term", term)
	return true
}

// Stop leaves the network and closes the log. The store stays open.
func (n *Node) Stop(ctx context.Context) error {
	close(n.done)
	err := n.raft.Shutdown().Error()
	n.readyTerm.Store(0)
	return errors.Join(err, n.group.Stop(ctx), n.trans.Close(), n.logs.Close())
}

// HandOver makes another server the leader if this one is, and waits until it is or ctx ends: a
// cluster that is told does not have to notice.
func (n *Node) HandOver(ctx context.Context) {
	if ctx.Err() != nil || n.raft.State() != raft.Leader || len(n.Servers()) == 1 {
		return
	}
	moved := make(chan error, 1)
	go func() { moved <- n.raft.LeadershipTransfer().Error() }()
	select {
	case err := <-moved:
		if err != nil {
			n.log.Warn("could not hand leadership over", "error", err)
		}
	case <-ctx.Done():
	}
}
