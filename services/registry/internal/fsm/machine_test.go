package fsm_test

import (
	"bytes"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/badgerstore"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/record/recordtest"
)

const kv = registryv1.Table_TABLE_KV

func put(key, value string) *registryv1.Operation {
	return &registryv1.Operation{Op: &registryv1.Operation_Put{Put: &registryv1.Record{
		Table: kv, Key: key, Value: []byte(value), OriginDatacenter: "dc1",
	}}}
}

func del(key string) *registryv1.Operation {
	return &registryv1.Operation{Op: &registryv1.Operation_Delete{Delete: &registryv1.RecordKey{Table: kv, Key: key}}}
}

func delPrefix(key string) *registryv1.Operation {
	return &registryv1.Operation{Op: &registryv1.Operation_DeletePrefix{DeletePrefix: &registryv1.RecordKey{Table: kv, Key: key}}}
}

func at(seconds int64) *timestamppb.Timestamp { return &timestamppb.Timestamp{Seconds: seconds} }

func apply(t require.TestingT, s *recordtest.Store, index uint64, cmd *registryv1.Command) *registryv1.CommandResult {
	result, err := fsm.Apply(s.At(index), index, cmd)
	require.NoError(t, err)
	return result
}

func TestPutStampsIndexesAndVersions(t *testing.T) {
	s := recordtest.New()
	apply(t, s, 5, &registryv1.Command{Time: at(1), Epoch: 3, Operations: []*registryv1.Operation{put("local/a", "1")}})
	apply(t, s, 9, &registryv1.Command{Time: at(2), Epoch: 3, Operations: []*registryv1.Operation{put("local/a", "2")}})
	row, err := s.Get(kv, "local/a")
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(&registryv1.Record{
		Table: kv, Key: "local/a", Value: []byte("2"), CreateIndex: 5, ModifyIndex: 9, Version: 2,
		OriginDatacenter: "dc1", OriginEpoch: 3, OriginIndex: 9, OriginTime: at(2),
	}, row, protocmp.Transform()))

	apply(t, s, 10, &registryv1.Command{Time: at(3), Operations: []*registryv1.Operation{del("local/a")}})
	row, err = s.Get(kv, "local/a")
	require.NoError(t, err)
	require.True(t, row.GetDeleted())
	require.Empty(t, row.GetValue())
	require.EqualValues(t, 10, row.GetModifyIndex())

	apply(t, s, 11, &registryv1.Command{Time: at(4), Operations: []*registryv1.Operation{put("local/a", "3")}})
	row, err = s.Get(kv, "local/a")
	require.NoError(t, err)
	require.EqualValues(t, 11, row.GetCreateIndex(), "a row written anew begins anew")
	require.EqualValues(t, 1, row.GetVersion())
}

func TestFailedConditionChangesNothing(t *testing.T) {
	s := recordtest.New()
	apply(t, s, 1, &registryv1.Command{Operations: []*registryv1.Operation{put("local/a", "1")}})
	result := apply(t, s, 2, &registryv1.Command{
		Operations: []*registryv1.Operation{put("local/b", "x"), del("local/a")},
		Conditions: []*registryv1.Condition{
			{Row: &registryv1.RecordKey{Table: kv, Key: "local/a"}, ModifyIndex: 1, Reason: "FIRST"},
			{Row: &registryv1.RecordKey{Table: kv, Key: "local/b"}, ModifyIndex: 7, Reason: "SECOND"},
		},
	})
	require.Equal(t, "SECOND", result.GetFailedReason())
	require.Zero(t, result.GetChanged())
	require.Len(t, s.All(), 1)
}

func TestRequestIDAppliesOnce(t *testing.T) {
	s := recordtest.New()
	cmd := &registryv1.Command{Time: at(1), RequestId: "r1", Operations: []*registryv1.Operation{put("local/a", "1")}}
	first := apply(t, s, 1, cmd)
	apply(t, s, 2, &registryv1.Command{Time: at(2), Operations: []*registryv1.Operation{put("local/a", "2")}})
	again := apply(t, s, 3, cmd)
	require.Empty(t, cmp.Diff(first, again, protocmp.Transform()))
	row, err := s.Get(kv, "local/a")
	require.NoError(t, err)
	require.Equal(t, "2", string(row.GetValue()))
}

func TestOldRequestsAreForgotten(t *testing.T) {
	s := recordtest.New()
	index := uint64(0)
	for range 2000 {
		index++
		apply(t, s, index, &registryv1.Command{Time: at(1), RequestId: fmt.Sprintf("r%d", index), Operations: []*registryv1.Operation{put("local/a", "1")}})
	}
	later := at(1 + int64(2*fsm.RequestRetention/time.Second))
	for range 2560 {
		index++
		apply(t, s, index, &registryv1.Command{Time: later, Operations: []*registryv1.Operation{put("local/a", "2")}})
	}
	require.Len(t, s.All(), 2, "the key and the hand")
}

func TestReplicateKeepsOriginAndIsIdempotent(t *testing.T) {
	s := recordtest.New()
	row := &registryv1.Record{
		Table: kv, Key: "global/a", Value: []byte("1"), Flags: 7,
		OriginDatacenter: "us-east", OriginEpoch: 2, OriginIndex: 77, OriginTime: at(5),
	}
	cmd := &registryv1.Command{Time: at(9), Operations: []*registryv1.Operation{{Op: &registryv1.Operation_Replicate{Replicate: row}}}}
	require.EqualValues(t, 1, apply(t, s, 4, cmd).GetChanged())
	require.EqualValues(t, 0, apply(t, s, 5, cmd).GetChanged())
	got, err := s.Get(kv, "global/a")
	require.NoError(t, err)
	want := proto.CloneOf(row)
	want.CreateIndex, want.ModifyIndex, want.Version = 4, 4, 1
	require.Empty(t, cmp.Diff(want, got, protocmp.Transform()))

	row.Deleted, row.Value, row.OriginIndex = true, nil, 80
	require.EqualValues(t, 1, apply(t, s, 6, cmd).GetChanged())
	require.EqualValues(t, 0, apply(t, s, 7, cmd).GetChanged())
}

func TestUnknownCommandIsAnError(t *testing.T) {
	_, err := fsm.Apply(recordtest.New(), 1, &registryv1.Command{Operations: []*registryv1.Operation{{}}})
	require.ErrorIs(t, err, fsm.ErrUnknownCommand)
	future := &registryv1.Command{}
	future.ProtoReflect().SetUnknown([]byte{0xf8, 0x06, 0x01})
	data, err := proto.Marshal(future)
	require.NoError(t, err)
	_, err = fsm.Decode(data)
	require.ErrorIs(t, err, fsm.ErrUnknownCommand)
}

func FuzzDecode(f *testing.F) {
	seed, err := proto.Marshal(&registryv1.Command{Time: at(1), RequestId: "r", Operations: []*registryv1.Operation{put("local/a", "v"), delPrefix("local/")}})
	require.NoError(f, err)
	f.Add(seed)
	f.Add([]byte{0x22, 0x00})
	f.Fuzz(func(t *testing.T, data []byte) {
		cmd, err := fsm.Decode(data)
		if err != nil {
			return
		}
		_, err = fsm.Apply(recordtest.New(), 1, cmd)
		require.NoError(t, err)
	})
}

func commands() *rapid.Generator[*registryv1.Command] {
	key := rapid.Custom(func(t *rapid.T) string {
		return rapid.SampledFrom([]string{"local/", "global/"}).Draw(t, "scope") + rapid.StringMatching(`[ab]{1,3}`).Draw(t, "key")
	})
	operation := rapid.Custom(func(t *rapid.T) *registryv1.Operation {
		k := key.Draw(t, "key")
		switch rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0:
			return del(k)
		case 1:
			return delPrefix(k)
		case 2:
			return &registryv1.Operation{Op: &registryv1.Operation_Replicate{Replicate: &registryv1.Record{
				Table: kv, Key: k, Value: []byte("r"), Deleted: rapid.Bool().Draw(t, "deleted"),
				OriginDatacenter: "far", OriginIndex: rapid.Uint64Range(1, 4).Draw(t, "origin"),
			}}}
		default:
			return put(k, rapid.StringN(0, 8, 8).Draw(t, "value"))
		}
	})
	return rapid.Custom(func(t *rapid.T) *registryv1.Command {
		cmd := &registryv1.Command{
			Time:       at(rapid.Int64Range(0, 2000).Draw(t, "time")),
			Operations: rapid.SliceOfN(operation, 0, 3).Draw(t, "operations"),
		}
		if rapid.Bool().Draw(t, "has id") {
			cmd.RequestId = rapid.StringMatching(`[a-e]{2}`).Draw(t, "id")
		}
		if rapid.IntRange(0, 3).Draw(t, "has condition") == 0 {
			cmd.Conditions = []*registryv1.Condition{{
				Row:         &registryv1.RecordKey{Table: kv, Key: key.Draw(t, "condition key")},
				ModifyIndex: rapid.Uint64Range(0, 20).Draw(t, "condition index"), Reason: "CAS_MISMATCH",
			}}
		}
		return cmd
	})
}

func open(t require.TestingT, dir string) *badgerstore.Store {
	options := badgerstore.DefaultOptions(dir, slog.New(slog.DiscardHandler))
	options.MemTableBytes = 8 << 20
	s, err := badgerstore.Open(options)
	require.NoError(t, err)
	return s
}

func dump(t require.TestingT, s *badgerstore.Store) []*registryv1.Record {
	var rows []*registryv1.Record
	require.NoError(t, s.View(func(r record.Reader) (err error) {
		rows, err = recordtest.Dump(r)
		return err
	}))
	return rows
}

// Badger in batches, Badger restored from a snapshot in the middle, and a plain map fed one by one
// must agree on every row and every outcome.
func TestSnapshotThenRestoreEqualsReplay(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		cmds := rapid.SliceOfN(commands(), 1, 40).Draw(rt, "commands")
		first := rapid.SampledFrom([]uint64{1, 230, 500}).Draw(rt, "first index")
		cut := rapid.IntRange(0, len(cmds)).Draw(rt, "cut")
		oracle, replayed, restored := recordtest.New(), open(rt, t.TempDir()), open(rt, t.TempDir())
		defer func() {
			require.NoError(rt, replayed.Close())
			require.NoError(rt, restored.Close())
		}()
		for i := 0; i < len(cmds); {
			if i >= cut && restored.Applied() == 0 && replayed.Applied() > 0 {
				var snapshot bytes.Buffer
				require.NoError(rt, replayed.WriteSnapshot(replayed.Applied(), &snapshot))
				require.NoError(rt, restored.Restore(&snapshot))
			}
			size := min(rapid.IntRange(1, 5).Draw(rt, "batch"), len(cmds)-i)
			target := []*badgerstore.Store{replayed}
			if restored.Applied() > 0 {
				target = append(target, restored)
			}
			var results [][]*registryv1.CommandResult
			for _, s := range target {
				batch := s.Begin()
				var outcome []*registryv1.CommandResult
				for j := range size {
					index := first + uint64(i+j)
					result, err := fsm.Apply(batch.At(index), index, cmds[i+j])
					require.NoError(rt, err)
					outcome = append(outcome, result)
				}
				require.NoError(rt, batch.Commit())
				results = append(results, outcome)
			}
			for j := range size {
				index := first + uint64(i+j)
				want := apply(rt, oracle, index, cmds[i+j])
				for _, outcome := range results {
					require.Empty(rt, cmp.Diff(want, outcome[j], protocmp.Transform()))
				}
			}
			i += size
		}
		require.Empty(rt, cmp.Diff(oracle.All(), dump(rt, replayed), protocmp.Transform()))
		if restored.Applied() > 0 {
			require.Empty(rt, cmp.Diff(oracle.All(), dump(rt, restored), protocmp.Transform()))
		}
	})
}

// TestMain keeps the property test, which opens two stores per case, within the time a person waits.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("rapid.checks"); f != nil && f.Value.String() == f.DefValue {
		_ = flag.Set("rapid.checks", "30")
	}
	os.Exit(m.Run())
}
