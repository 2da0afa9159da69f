package raftnode

import (
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// snapshotStall is how long a snapshot on its way to this server may bring nothing. Its receiver is
// the Raft loop itself, which does nothing else meanwhile: a leader that pauses in the middle would
// take this server's vote along.
const snapshotStall = 5 * time.Second

// snapshotStore watches snapshots that come over the network.
type snapshotStore struct {
	raft.SnapshotStore
	// applied is how far this server is: a snapshot from beyond comes from the leader.
	applied func() uint64
	// hangUp ends every connection from peers.
	hangUp func()
	log    *slog.Logger
}

// Create implements raft.SnapshotStore.
func (s *snapshotStore) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, configuration, configurationIndex, trans)
	if err != nil || index <= s.applied() {
		return sink, err
	}
	a := &incoming{SnapshotSink: sink, done: make(chan struct{})}
	s.log.Info("receiving a snapshot", "index", index)
	go a.watch(s)
	return a, nil
}

// Open implements raft.SnapshotStore. What it returns knows its index.
func (s *snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, source, err := s.SnapshotStore.Open(id)
	if err != nil {
		return nil, nil, err
	}
	return meta, opened{source, meta.Index}, nil
}

// opened is a snapshot that is read.
type opened struct {
	io.ReadCloser
	index uint64
}

// indexOf returns the index of a snapshot as the Raft library hands it over, and whether it is
// known.
func indexOf(r io.ReadCloser) (uint64, bool) {
	if wrapper, ok := r.(raft.ReadCloserWrapper); ok {
		r = wrapper.WrappedReadCloser()
	}
	o, ok := r.(opened)
	return o.index, ok
}

// incoming is an incoming snapshot.
type incoming struct {
	raft.SnapshotSink
	bytes atomic.Uint64
	ended atomic.Bool
	done  chan struct{}
}

// Write implements raft.SnapshotSink.
func (a *incoming) Write(p []byte) (int, error) {
	n, err := a.SnapshotSink.Write(p)
	a.bytes.Add(uint64(n)) //nolint:gosec // a length
	return n, err
}

// Close implements raft.SnapshotSink.
func (a *incoming) Close() error {
	a.end()
	return a.SnapshotSink.Close()
}

// Cancel implements raft.SnapshotSink.
func (a *incoming) Cancel() error {
	a.end()
	return a.SnapshotSink.Cancel()
}

func (a *incoming) end() {
	if a.ended.CompareAndSwap(false, true) {
		close(a.done)
	}
}

func (a *incoming) watch(s *snapshotStore) {
	tick := time.NewTicker(snapshotStall)
	defer tick.Stop()
	before := uint64(0)
	for {
		select {
		case <-a.done:
			s.log.Info("received a snapshot", "bytes", a.bytes.Load())
			return
		case <-tick.C:
		}
		now := a.bytes.Load()
		if now == before {
			s.log.Warn("a snapshot brings nothing any more; hanging up", "bytes", now)
			s.hangUp()
		} else {
			s.log.Info("receiving a snapshot", "bytes", now)
		}
		before = now
	}
}
