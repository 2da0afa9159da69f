package raftnode

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/testing/protocmp"

	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/identity/identitytest"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/badgerstore"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/record/recordtest"
	"konsul.dev/services/registry/internal/steps"
)

// A life is one process of a server of its own, which writes and takes snapshots until it is
// through or dies.
type life struct {
	Dir, Address string
	// Dies is the step at which the process ends, when it comes there for the Count-th time; empty:
	// it does not.
	Dies  string
	Count int64
	// First is the number of its first command, Commands how many there are.
	First, Commands int
}

const (
	lifeVariable = "RAFTNODE_LIFE"
	crashKV      = registryv1.Table_TABLE_KV
	// snapshotEach is how many commands there are between snapshots.
	snapshotEach = 8
)

func (l life) path(name string) string { return filepath.Join(l.Dir, name) }

func (l life) storeOptions() badgerstore.Options {
	o := badgerstore.DefaultOptions(l.path("state"), slog.New(slog.DiscardHandler))
	// A few batches fill the tail, and fall out of the window.
	o.BadgerMemtableBytes, o.MemtableBytes, o.RetentionBytes = 8<<20, 4<<10, 2<<10
	return o
}

func (l life) raftConfig() Config {
	return Config{
		ID: "s1", Listen: l.Address, Advertise: l.Address, Dir: l.path("raft"),
		Timing:        Timing{Heartbeat: 50 * time.Millisecond, Election: 50 * time.Millisecond, Lease: 50 * time.Millisecond},
		SnapshotEvery: 1 << 20, TrailingLogs: 4, SnapshotBytes: 1 << 30, TrailingBytes: 1 << 30, SegmentBytes: 1 << 20,
		MaxInFlight: 64, MaxInFlightBytes: 1 << 20,
	}
}

// number builds the command of a number: a row of its own that stays, one that others overwrite,
// one that goes, some of them conditional and some repeated.
func numbered(i int) *registryv1.Command {
	put := func(key string) *registryv1.Operation {
		return &registryv1.Operation{Op: &registryv1.Operation_Put{Put: &registryv1.Record{
			Table: crashKV, Key: key, Value: fmt.Appendf(nil, "%d-%s", i, strings.Repeat("v", i%512)), OriginDatacenter: "dc1",
		}}}
	}
	cmd := &registryv1.Command{RequestId: fmt.Sprintf("request-%d", i-i%7/6), Operations: []*registryv1.Operation{put(ownRow(i)), put(fmt.Sprintf("local/shared/%d", i%3))}}
	switch i % 5 {
	case 3:
		row := &registryv1.RecordKey{Table: crashKV, Key: fmt.Sprintf("local/shared/%d", (i+1)%3)}
		cmd.Operations = append(cmd.Operations, &registryv1.Operation{Op: &registryv1.Operation_Delete{Delete: row}})
	case 4:
		cmd.Conditions = []*registryv1.Condition{{Row: &registryv1.RecordKey{Table: crashKV, Key: "local/shared/0"}, ModifyIndex: uint64(i), Reason: "CAS_MISMATCH"}}
	}
	return cmd
}

func ownRow(i int) string { return fmt.Sprintf("local/own/%06d", i) }

// kept reports whether an acknowledged command must have left its own row.
func kept(i int) bool { return i%5 != 4 && i%7 != 6 }

// TestLife is no test: it is what the processes of the crash tests do.
func TestLife(t *testing.T) {
	text := os.Getenv(lifeVariable)
	if text == "" {
		t.Skip("run by the crash tests")
	}
	var l life
	require.NoError(t, json.Unmarshal([]byte(text), &l))
	var n *Node
	var counted atomic.Int64
	hook := func(step string) {
		// What the log forgets the test must know.
		if step == steps.Truncating && n != nil {
			require.NoError(t, appendJournal(l, n.logs))
		}
		// What is on disk for sure, should the power fail.
		if step == steps.FlushedManifest {
			require.NoError(t, copyTree(l.path("state"), l.path("synced")))
		}
		if step == l.Dies && counted.Add(1) == l.Count {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	store, started := l.start(t, hook)
	n = started
	if n.fresh {
		require.NoError(t, n.Found([]Server{{ID: "s1", Address: l.Address, Voter: true}}))
	}
	n.Open()
	require.Eventually(t, n.IsLeader, 20*time.Second, time.Millisecond)
	acknowledged, err := os.OpenFile(l.path("acknowledged"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	for i := l.First; i < l.First+l.Commands; i++ {
		_, err := n.Propose(context.Background(), numbered(i))
		require.NoError(t, err)
		_, err = fmt.Fprintln(acknowledged, i)
		require.NoError(t, err)
		if i%snapshotEach == snapshotEach-1 {
			if err := n.Snapshot(); !errors.Is(err, raft.ErrNothingNewToSnapshot) {
				require.NoError(t, err)
			}
		}
	}
	require.NoError(t, n.Stop(context.Background()))
	require.NoError(t, store.Close())
}

// start opens the store and starts the node.
func (l life) start(t *testing.T, hook steps.Hook) (*badgerstore.Store, *Node) {
	t.Helper()
	options := l.storeOptions()
	options.Step = hook
	store, err := badgerstore.Open(options)
	require.NoError(t, err)
	metrics := NewMetrics(prometheus.NewRegistry())
	var seconds atomic.Int64
	n, err := Start(Params{
		Config: l.raftConfig(), Store: store, Machine: fsm.New(), Sink: &recorder{}, Identity: identitytest.NewCA(t, identitytest.FederationID).SourceOf(identity.ID{
			FederationID: identitytest.FederationID, Datacenter: "dc1", Kind: identity.KindService, Service: "registry",
		}),
		Metrics: metrics, Log: slog.New(slog.DiscardHandler), Step: hook,
		Fatal: func(err error) { panic(err) }, Admit: func(uint32) error { return nil },
		Stamp: func() (time.Time, uint64) { return time.Unix(seconds.Add(1), 0), 1 },
	})
	require.NoError(t, err)
	return store, n
}

// journalled is an entry of the log in the journal.
type journalled struct {
	Index   uint64
	Command bool
	Data    []byte
}

// appendJournal writes down everything that is in the log.
func appendJournal(l life, logs raft.LogStore) error {
	f, err := os.OpenFile(l.path("journal"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	first, err := logs.FirstIndex()
	if err != nil {
		return err
	}
	last, err := logs.LastIndex()
	if err != nil {
		return err
	}
	out := json.NewEncoder(f)
	for index := max(first, 1); index <= last; index++ {
		var entry raft.Log
		if err := logs.GetLog(index, &entry); err != nil {
			return err
		}
		if err := out.Encode(journalled{index, entry.Type == raft.LogCommand, entry.Data}); err != nil {
			return err
		}
	}
	return nil
}

func copyTree(from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	// Files that come and go meanwhile are Badger's compaction's.
	err := os.CopyFS(to, os.DirFS(from))
	if errors.Is(err, fs.ErrNotExist) {
		return copyTree(from, to)
	}
	return err
}

// run runs a life to its end and says whether it died as it should.
func (l life) run(t *testing.T) {
	t.Helper()
	text, err := json.Marshal(l)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestLife$", "-test.count=1")
	cmd.Env = append(os.Environ(), lifeVariable+"="+string(text))
	out, err := cmd.CombinedOutput()
	if l.Dies == "" {
		require.NoError(t, err, "%s", out)
		return
	}
	var ended *exec.ExitError
	require.ErrorAs(t, err, &ended, "it never came to %s: %s", l.Dies, out)
	status, ok := ended.Sys().(syscall.WaitStatus)
	require.True(t, ok && status.Signaled() && status.Signal() == syscall.SIGKILL, "it did not die at %s: %v: %s", l.Dies, err, out)
}

// check compares the state with a replay of the log.
func (l life) check(t *testing.T) {
	t.Helper()
	logs, err := openLog(l.raftConfig(), nil, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.NoError(t, appendJournal(l, logs))
	last, err := logs.LastIndex()
	require.NoError(t, err)
	require.NoError(t, logs.Close())
	journal, err := os.ReadFile(l.path("journal"))
	require.NoError(t, err)
	entries := map[uint64]journalled{}
	for in := json.NewDecoder(bytes.NewReader(journal)); in.More(); {
		var e journalled
		require.NoError(t, in.Decode(&e))
		entries[e.Index] = e // The last one counts: an entry that was not committed may have been replaced.
	}
	oracle, machine := recordtest.New(), fsm.New()
	for index := uint64(1); index <= last; index++ {
		e, ok := entries[index]
		require.True(t, ok, "entry %d of %d is nowhere", index, last)
		if !e.Command {
			continue
		}
		cmds, err := fsm.DecodeEntry(e.Data)
		require.NoError(t, err)
		_, err = machine.Apply(oracle.At(index), index, cmds...)
		require.NoError(t, err)
	}
	store, err := badgerstore.Open(l.storeOptions())
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	var rows []*registryv1.Record
	require.NoError(t, store.View(func(r record.Reader) (err error) {
		rows, err = recordtest.Dump(r)
		return err
	}))
	require.Empty(t, cmp.Diff(oracle.All(), rows, protocmp.Transform()))
	acknowledged, err := os.ReadFile(l.path("acknowledged"))
	require.NoError(t, err)
	for lines := bufio.NewScanner(bytes.NewReader(acknowledged)); lines.Scan(); {
		var i int
		_, err := fmt.Sscan(lines.Text(), &i)
		require.NoError(t, err)
		row, err := oracle.Get(crashKV, ownRow(i))
		require.NoError(t, err)
		require.True(t, !kept(i) || record.Live(row), "command %d was acknowledged and is gone", i)
	}
}

// losePower leaves of the state what was synced, and of the rest of the memtables' logs what chance
// has written.
func losePower(t *testing.T, l life, chance *rand.Rand) {
	t.Helper()
	const page = 4 << 10
	logs, err := filepath.Glob(l.path("state/*.mem"))
	require.NoError(t, err)
	for _, path := range logs {
		now, err := os.ReadFile(path)
		require.NoError(t, err)
		sure, err := os.ReadFile(l.path("synced/" + filepath.Base(path)))
		if !errors.Is(err, fs.ErrNotExist) {
			require.NoError(t, err)
		}
		sure = append(sure, make([]byte, max(0, len(now)-len(sure)))...)[:len(now)]
		for at := 0; at < len(now); at += page {
			end := min(at+page, len(now))
			if !bytes.Equal(now[at:end], sure[at:end]) && chance.IntN(2) == 0 {
				copy(now[at:end], sure[at:end])
			}
		}
		require.NoError(t, os.WriteFile(path, now, 0o600))
	}
}

// Killed at any step, with the machine or without, a server comes back with the state that its log
// says.
func TestAServerKilledAtAnyStepComesBackWithWhatItsLogSays(t *testing.T) {
	base := life{Dir: t.TempDir(), Address: "127.0.0.1:0", Commands: 30}
	base.run(t)
	base.check(t)
	restores := []string{steps.Restoring, steps.RestoreVoid, steps.RestoreEmpty, steps.RestoreRows, steps.Restored}
	seed := rand.Uint64()
	chance := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	all := slices.Concat([]string{
		steps.Appending, steps.Appended, steps.Truncating, steps.Truncated, steps.Applying, steps.Applied,
		steps.Flushing, steps.Flushed, steps.FlushedFiles, steps.FlushedManifest,
		steps.Snapshotting, steps.SnapshotRows, steps.Snapshotted,
	}, restores)
	for _, step := range all {
		for _, power := range []bool{false, true} {
			name := step + ", the process alone"
			if power {
				name = step + ", the machine"
			}
			t.Run(name, func(t *testing.T) {
				dir := t.TempDir()
				require.NoError(t, os.CopyFS(dir, os.DirFS(base.Dir)))
				l := base
				l.Dir, l.First = dir, base.Commands
				dying := l
				dying.Dies, dying.Count = step, 1+chance.Int64N(2)
				if slices.Contains(restores, step) {
					dying.Count = 1
					require.NoError(t, os.RemoveAll(l.path("state")))
				}
				dying.run(t)
				after := l
				after.First += dying.Commands
				after.Commands = 5
				if power {
					losePower(t, dying, chance)
				}
				after.run(t)
				after.check(t)
			})
		}
	}
}

// What a server has shown it shows again after its process was killed, before there is a leader.
func TestAServerThatWasKilledDoesNotGoBackInTime(t *testing.T) {
	l := life{Dir: t.TempDir(), Address: "127.0.0.1:0", Commands: 30, Dies: steps.Applied, Count: 25}
	l.run(t)
	opened, err := badgerstore.Open(l.storeOptions())
	require.NoError(t, err)
	files, reached := opened.Applied(), opened.Reached()
	require.NoError(t, opened.Close())
	require.Less(t, files, reached, "everything was flushed, so nothing is tested")

	store, n := l.start(t, nil)
	require.False(t, n.IsLeader())
	require.Equal(t, reached, store.Applied())
	require.NoError(t, n.Stop(t.Context()))
	require.NoError(t, store.Close())
}
