package raftnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/badgerstore"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/record"
)

// ReasonNothingToRecover says that a server never was in a cluster, or lost its disk.
const ReasonNothingToRecover = "NOTHING_TO_RECOVER"

// Recovery makes one server the only voter of its cluster with the data on its disk. It works on a
// stopped server: nothing else may use its folders. It is not safe for concurrent use.
type Recovery struct {
	config    Config
	log       *slog.Logger
	store     *badgerstore.Store
	machine   *fsm.Machine
	release   func() error
	logs      *logStore
	snapshots raft.SnapshotStore
	trans     *raft.InmemTransport
	// keep says that the store needs nothing of the snapshot.
	keep bool

	Disk Disk
	// Members are those of the cluster as this server knows it.
	Members []Server
	// Applied is how far its state is; Snapshot is the index of its latest snapshot, 0 when it has
	// none.
	Applied, Snapshot uint64
	// Last and LastTerm are those of its log: of several servers the one with the higher term, then
	// the higher index, has the most.
	Last, LastTerm uint64
}

// PrepareRecovery opens a server's folders and checks that they are whole, all of it: the snapshot,
// the log, and every row. It changes nothing there. The caller closes it.
func PrepareRecovery(c Config, store *badgerstore.Store, log *slog.Logger) (_ *Recovery, err error) {
	if _, err := os.Stat(c.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nothing(c.Dir)
	}
	held, err := lock(c.Dir)
	if err != nil {
		return nil, err
	}
	r := &Recovery{config: c, log: log, store: store, machine: fsm.New(), release: held.Close}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if r.Disk, err = openDisk(c.Dir, c.ID); err != nil {
		return nil, err
	}
	if r.logs, err = openLog(c, nil, log); err != nil {
		return nil, err
	}
	if r.snapshots, err = raft.NewFileSnapshotStoreWithLogger(c.Dir, snapshotsKept, newLogger(log)); err != nil {
		return nil, fmt.Errorf("open snapshots in %q: %w", c.Dir, err)
	}
	_, r.trans = raft.NewInmemTransport(raft.ServerAddress(c.Advertise))
	if err := r.check(); err != nil {
		return nil, err
	}
	return r, r.members()
}

func nothing(dir string) error {
	return fault.New(fault.FailedPrecondition, ReasonNothingToRecover, "%q holds no data of a cluster", dir).
		WithRemedy("recover a server that has its data; this one joins by itself afterwards")
}

// Close lets go of the folders, but for the store, which is its owner's.
func (r *Recovery) Close() error {
	var errs []error
	if r.logs != nil {
		errs = append(errs, r.logs.Close())
	}
	return errors.Join(append(errs, r.release())...)
}

func (r *Recovery) check() error {
	has, err := raft.HasExistingState(r.logs, r.logs, r.snapshots)
	if err != nil {
		return fmt.Errorf("look for raft state: %w", err)
	}
	if !has {
		return nothing(r.config.Dir)
	}
	if err := r.checkSnapshot(); err != nil {
		return err
	}
	r.Applied = r.store.Applied()
	restore, err := mustRestore(r.snapshots, r.logs, r.Applied)
	if err != nil {
		return err
	}
	r.keep = !restore
	if err := r.checkLog(); err != nil {
		return err
	}
	if r.keep {
		// Reading all of it is the only way to know that it can be read.
		if err := r.store.WriteSnapshot(r.Applied, io.Discard); err != nil {
			return record.Damaged("the store cannot be read: %v", err).Wrap(err)
		}
	}
	return nil
}

// checkSnapshot reads the latest snapshot; the library compares its checksum.
func (r *Recovery) checkSnapshot() error {
	list, err := r.snapshots.List()
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	if len(list) == 0 {
		return nil
	}
	r.Snapshot, r.LastTerm, r.Last = list[0].Index, list[0].Term, list[0].Index
	_, source, err := r.snapshots.Open(list[0].ID)
	if err != nil {
		return record.Damaged("the snapshot %s cannot be read: %v", list[0].ID, err).Wrap(err)
	}
	return source.Close()
}

// checkLog reads every entry that is to be applied.
func (r *Recovery) checkLog() error {
	last, err := r.logs.LastIndex()
	if err != nil {
		return fmt.Errorf("read last log index: %w", err)
	}
	for index := r.Snapshot + 1; index <= last; index++ {
		var entry raft.Log
		if err := r.logs.GetLog(index, &entry); err != nil {
			return record.Damaged("entry %d of the log cannot be read: %v", index, err).Wrap(err)
		}
		if entry.Type == raft.LogCommand {
			if _, err := fsm.DecodeEntry(entry.Data); err != nil {
				return record.Damaged("entry %d of the log: %v", index, err).Wrap(err)
			}
		}
		r.Last, r.LastTerm = entry.Index, entry.Term
	}
	return nil
}

// members asks the library which configuration it would start with.
func (r *Recovery) members() error {
	config := r.raftConfig()
	config.NoSnapshotRestoreOnStart = true
	configuration, err := raft.GetConfiguration(config, &recoverer{}, r.logs, r.logs, r.snapshots, r.trans)
	if err != nil {
		return record.Damaged("the members cannot be read: %v", err).Wrap(err)
	}
	for _, s := range configuration.Servers {
		r.Members = append(r.Members, Server{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return nil
}

func (r *Recovery) raftConfig() *raft.Config {
	return raftConfig(r.config, r.log, make(chan bool, notifyBuffer), true)
}

// Run does it: the log that is here counts as committed, and this server as all of the cluster. It
// may be run again when it was cut short.
func (r *Recovery) Run(context.Context) error {
	// First of all the others must be told apart: they may hold what this server then lacks.
	disk := r.Disk
	disk.Generation++
	if err := writeDisk(r.config.Dir, disk); err != nil {
		return err
	}
	r.Disk = disk
	if err := r.store.View(r.machine.Load); err != nil {
		return err
	}
	m := &recoverer{
		machine: machine{store: r.store, fsm: r.machine, sink: nobody{}, metrics: NewMetrics(prometheus.NewRegistry()), fatal: func(error) {}},
		keep:    r.keep,
	}
	alone := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(r.config.ID), Address: raft.ServerAddress(r.config.Advertise)}}}
	if err := raft.RecoverCluster(r.raftConfig(), m, r.logs, r.logs, r.snapshots, r.trans, alone); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	r.Applied = r.store.Applied()
	return nil
}

// recoverer is the machine as the recovery drives it. A store that needs nothing of the snapshot is
// left as it is: restoring would throw away what is good for a copy of it.
type recoverer struct {
	machine
	keep bool
}

// Restore implements raft.FSM.
func (r *recoverer) Restore(source io.ReadCloser) error {
	if r.keep {
		return nil
	}
	return r.machine.Restore(source)
}

// nobody follows the commits of a recovery.
type nobody struct{}

func (nobody) Committed(uint64, []*registryv1.Record) error { return nil }
func (nobody) Restored() error                              { return nil }
