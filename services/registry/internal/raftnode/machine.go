package raftnode

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"konsul.dev/services/registry/internal/badgerstore"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/steps"
)

// machine adapts fsm and store to the Raft library. Raft calls it from one goroutine, but for
// Persist.
type machine struct {
	store   *badgerstore.Store
	fsm     *fsm.Machine
	sink    Sink
	metrics *Metrics
	fatal   func(error)
	step    steps.Hook
	// applied, if set, hears of the last entry of each batch.
	applied func(index, term uint64)
	// first, if set, returns the first index of the log.
	first func() (uint64, error)
	// snapshots is how many of this server's own snapshots are on their way, which end with the log
	// being shortened.
	snapshots atomic.Int32

	mu     sync.Mutex
	broken error
}

var _ raft.BatchingFSM = (*machine)(nil)

// errBroken is what follows the first failure: a state machine that missed a command must not go
// on.
var errBroken = errors.New("the state machine has stopped")

func (m *machine) failure() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.broken
}

func (m *machine) fail(err error) error {
	m.mu.Lock()
	first := m.broken == nil
	if first {
		m.broken = fmt.Errorf("%w: %w", errBroken, err)
	}
	broken := m.broken
	m.mu.Unlock()
	if first {
		m.fatal(broken)
	}
	return broken
}

// Apply is ApplyBatch of one.
func (m *machine) Apply(log *raft.Log) any { return m.ApplyBatch([]*raft.Log{log})[0] }

// ApplyBatch applies committed entries as one write and returns the []*CommandResult of each, or
// why the machine has stopped.
func (m *machine) ApplyBatch(logs []*raft.Log) []any {
	start := time.Now()
	responses := make([]any, len(logs))
	err := m.failure()
	if err == nil {
		if err = m.apply(logs, responses); err != nil {
			err = m.fail(err)
		}
	}
	if err != nil {
		for i := range responses {
			responses[i] = err
		}
		return responses
	}
	m.metrics.applied(len(logs), time.Since(start), m.store.Applied())
	return responses
}

// apply runs the commands of the entries as one batch. Batch.Commit makes it visible to readers of
// the store, Sink.Committed to those of everything that follows it; writers hear of it afterwards.
func (m *machine) apply(logs []*raft.Log, responses []any) error {
	applied := m.store.Applied()
	batch := m.store.Begin()
	defer batch.Discard()
	last, term := uint64(0), uint64(0)
	for i, log := range logs {
		if log.Type != raft.LogCommand || log.Index <= applied {
			continue
		}
		cmds, err := fsm.DecodeEntry(log.Data)
		if err != nil {
			return fmt.Errorf("entry %d: %w", log.Index, err)
		}
		results, err := m.fsm.Apply(batch.At(log.Index), log.Index, cmds...)
		if err != nil {
			return fmt.Errorf("entry %d: %w", log.Index, err)
		}
		responses[i], last, term = results, log.Index, log.Term
	}
	if last == 0 {
		return nil
	}
	if err := batch.Commit(); err != nil {
		return err
	}
	if err := m.sink.Committed(last, batch.Changes()); err != nil {
		return err
	}
	if m.applied != nil {
		m.applied(last, term)
	}
	return nil
}

// catchUpEntries is how many entries are applied as one batch at start.
const catchUpEntries = 64

// catchUp applies again, before anybody may read, what an earlier run of this server had applied
// and not put into the store's files: all of it was committed, and readers of this server must not
// go back in time, even while there is no leader to say so again.
func (m *machine) catchUp(logs raft.LogStore, reached uint64) error {
	last, err := logs.LastIndex()
	if err != nil {
		return fmt.Errorf("read last log index: %w", err)
	}
	for index, end := m.store.Applied()+1, min(reached, last); index <= end; {
		batch := make([]*raft.Log, 0, catchUpEntries)
		for ; index <= end && len(batch) < catchUpEntries; index++ {
			entry := &raft.Log{}
			if err := logs.GetLog(index, entry); errors.Is(err, raft.ErrLogNotFound) {
				end = index - 1 // The log goes on further up; a leader says how.
				break
			} else if err != nil {
				return fmt.Errorf("read entry %d of the log: %w", index, err)
			}
			batch = append(batch, entry)
		}
		m.ApplyBatch(batch)
		if err := m.failure(); err != nil {
			return err
		}
	}
	return nil
}

// Snapshot marks the applied state; Persist writes it while entries go on being applied.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	if err := m.failure(); err != nil {
		return nil, err
	}
	m.snapshots.Add(1)
	return &snapshot{store: m.store, index: m.store.Applied(), step: m.step, release: func() { m.snapshots.Add(-1) }}, nil
}

// Restore replaces the state by a snapshot, at start or when the leader sent one.
func (m *machine) Restore(r io.ReadCloser) error {
	if err := m.failure(); err != nil {
		return err
	}
	if index, known := indexOf(r); known && index <= m.store.Applied() {
		return m.pass(index)
	}
	start := time.Now()
	if err := m.store.Restore(r); err != nil {
		return m.fail(fmt.Errorf("restore snapshot: %w", err))
	}
	if err := m.store.View(m.fsm.Load); err != nil {
		return m.fail(err)
	}
	if err := m.sink.Restored(); err != nil {
		return m.fail(err)
	}
	m.metrics.restored(time.Since(start), m.store.Applied())
	return nil
}

// errPast refuses a snapshot of the past. It leaves the machine as it is.
var errPast = errors.New("the snapshot is older than this server's log: it has more than that")

// pass deals with a snapshot of what is here already, such as a leader sends that has not heard how
// far this server is, or means another one that had this server's address before. Going back to it
// would show readers the past, so it is left alone. Of one that is not refused the library takes
// the index all the same, and applies what came since again, which is skipped; it panics when the
// log does not have that any more.
func (m *machine) pass(index uint64) error {
	if m.first == nil {
		return nil
	}
	first, err := m.first()
	if err != nil {
		return fmt.Errorf("read first log index: %w", err)
	}
	if first > index+1 || m.snapshots.Load() > 0 {
		return errPast
	}
	return nil
}

type snapshot struct {
	store   *badgerstore.Store
	index   uint64
	step    steps.Hook
	release func()
}

// Persist syncs the store first: once the snapshot is there Raft forgets the log before it.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	_, err := s.store.Sync()
	if err == nil {
		s.step.At(steps.Snapshotting)
		err = s.store.WriteSnapshot(s.index, sink)
	}
	if err != nil {
		return errors.Join(err, sink.Cancel())
	}
	s.step.At(steps.SnapshotRows)
	if err := sink.Close(); err != nil {
		return err
	}
	s.step.At(steps.Snapshotted)
	return nil
}

// Release follows when the log has been shortened, or will not be.
func (s *snapshot) Release() { s.release() }
