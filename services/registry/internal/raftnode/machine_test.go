package raftnode

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/badgerstore"
	"konsul.dev/services/registry/internal/fsm"
)

type recorder struct {
	committed []uint64
	rows      int
	restored  int
}

func (r *recorder) Committed(index uint64, rows []*registryv1.Record) error {
	r.committed, r.rows = append(r.committed, index), r.rows+len(rows)
	return nil
}

func (r *recorder) Restored() error {
	r.restored++
	return nil
}

func newMachine(t *testing.T) (*machine, *recorder, *[]error) {
	t.Helper()
	store, err := badgerstore.Open(badgerstore.DefaultOptions(t.TempDir(), slog.New(slog.DiscardHandler)))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	metrics := NewMetrics(prometheus.NewRegistry())
	sink, failures := &recorder{}, &[]error{}
	return &machine{store: store, fsm: fsm.New(), sink: sink, metrics: metrics, fatal: func(err error) { *failures = append(*failures, err) }}, sink, failures
}

func entry(t *testing.T, index uint64, key string) *raft.Log {
	t.Helper()
	data, err := proto.Marshal(&registryv1.Command{Operations: []*registryv1.Operation{{Op: &registryv1.Operation_Put{
		Put: &registryv1.Record{Table: registryv1.Table_TABLE_KV, Key: key},
	}}}})
	require.NoError(t, err)
	return &raft.Log{Type: raft.LogCommand, Index: index, Data: data}
}

func TestABatchIsOneCommitAndReplayIsSkipped(t *testing.T) {
	m, sink, failures := newMachine(t)
	batch := []*raft.Log{entry(t, 2, "a"), {Type: raft.LogConfiguration, Index: 3}, entry(t, 4, "b")}
	responses := m.ApplyBatch(batch)
	require.Len(t, responses, 3)
	require.EqualValues(t, 4, responses[2].([]*registryv1.CommandResult)[0].GetIndex())
	m.ApplyBatch(batch)
	m.ApplyBatch([]*raft.Log{entry(t, 4, "b"), entry(t, 5, "c")})
	require.Equal(t, []uint64{4, 5}, sink.committed)
	require.Equal(t, 3, sink.rows)
	require.Empty(t, *failures)
}

func TestAnUnknownCommandStopsTheMachineForGood(t *testing.T) {
	m, sink, failures := newMachine(t)
	strange, err := proto.Marshal(&registryv1.Command{Operations: []*registryv1.Operation{{}}})
	require.NoError(t, err)
	responses := m.ApplyBatch([]*raft.Log{entry(t, 1, "a"), {Type: raft.LogCommand, Index: 2, Data: strange}})
	require.ErrorIs(t, responses[0].(error), errBroken)
	require.ErrorIs(t, m.ApplyBatch([]*raft.Log{entry(t, 3, "b")})[0].(error), errBroken)
	require.Empty(t, sink.committed, "nothing of the batch became visible")
	require.Len(t, *failures, 1)
	_, err = m.Snapshot()
	require.ErrorIs(t, err, errBroken, "a snapshot would hide what was missed")
}

type sinkBuffer struct{ bytes.Buffer }

func (*sinkBuffer) ID() string    { return "snapshot" }
func (*sinkBuffer) Cancel() error { return errors.New("cancelled") }
func (*sinkBuffer) Close() error  { return nil }

func TestASnapshotRestoresIntoAnotherMachine(t *testing.T) {
	m, _, _ := newMachine(t)
	m.ApplyBatch([]*raft.Log{entry(t, 1, "a"), entry(t, 2, "b")})
	s, err := m.Snapshot()
	require.NoError(t, err)
	m.ApplyBatch([]*raft.Log{entry(t, 3, "c")})
	var buffer sinkBuffer
	require.NoError(t, s.Persist(&buffer))
	other, sink, failures := newMachine(t)
	require.NoError(t, other.Restore(io.NopCloser(&buffer)))
	require.Equal(t, 1, sink.restored)
	require.EqualValues(t, 2, other.store.Applied(), "the state as it was when the snapshot was taken")
	require.Error(t, other.Restore(io.NopCloser(bytes.NewReader([]byte("no snapshot")))))
	require.Len(t, *failures, 1)
}

func TestASnapshotOfThePastChangesNothing(t *testing.T) {
	m, _, _ := newMachine(t)
	m.ApplyBatch([]*raft.Log{entry(t, 1, "a"), entry(t, 2, "b")})
	s, err := m.Snapshot()
	require.NoError(t, err)
	var buffer sinkBuffer
	require.NoError(t, s.Persist(&buffer))
	m.ApplyBatch([]*raft.Log{entry(t, 3, "c")})
	require.NoError(t, m.Restore(opened{io.NopCloser(bytes.NewReader(buffer.Bytes())), 2}))
	require.EqualValues(t, 3, m.store.Applied(), "readers would see the past")
	require.NoError(t, m.Restore(opened{io.NopCloser(bytes.NewReader(buffer.Bytes())), 9}))
	require.EqualValues(t, 2, m.store.Applied(), "an operator restores what was, at an index that is new")
}

// A leader that sends a snapshot to a server which is gone reaches the one that has its address
// now. Once that one had shortened its log behind the snapshot's index, it went back to that index,
// and died looking for the next entry.
func TestASnapshotOlderThanTheLogIsRefused(t *testing.T) {
	m, _, failures := newMachine(t)
	first := uint64(1)
	m.first = func() (uint64, error) { return first, nil }
	m.ApplyBatch([]*raft.Log{entry(t, 1, "a"), entry(t, 2, "b"), entry(t, 3, "c")})
	old := func() error { return m.Restore(opened{io.NopCloser(bytes.NewReader(nil)), 2}) }
	require.NoError(t, old())
	own, err := m.Snapshot()
	require.NoError(t, err)
	require.ErrorIs(t, old(), errPast, "the log may be shortened at any moment")
	own.Release()
	require.NoError(t, old())
	first = 3
	require.NoError(t, old(), "what comes next is there")
	first = 4
	require.ErrorIs(t, old(), errPast)
	require.Empty(t, *failures, "it goes on as it is")
}
