package fsm_test

import (
	"bytes"
	"flag"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/badgerstore"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/fsm/fsmtest"
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
	result, err := fsmtest.Apply(s.At(index), index, cmd)
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
	_, err := fsmtest.Apply(recordtest.New(), 1, &registryv1.Command{Operations: []*registryv1.Operation{{}}})
	require.ErrorIs(t, err, fsm.ErrUnknownCommand)
	future := &registryv1.Command{}
	future.ProtoReflect().SetUnknown([]byte{0xf8, 0x06, 0x01})
	data, err := proto.Marshal(future)
	require.NoError(t, err)
	_, err = fsm.Decode(data)
	require.ErrorIs(t, err, fsm.ErrUnknownCommand)
}

func TestACommandThatIsNotTextDoesNotEnterTheLog(t *testing.T) {
	for name, cmd := range map[string]*registryv1.Command{
		"request id": {RequestId: "\xff", Operations: []*registryv1.Operation{put("local/a", "v")}},
		"key":        {Operations: []*registryv1.Operation{put("local/\xff", "v")}},
		"otherwise":  {Otherwise: []*registryv1.Operation{del("local/\xff")}},
		"condition":  {Conditions: []*registryv1.Condition{{Row: &registryv1.RecordKey{Table: kv, Key: "\xff"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := fsm.NewProposal(cmd)
			require.ErrorContains(t, err, "UTF-8")
		})
	}
	_, err := fsm.NewProposal(&registryv1.Command{Operations: []*registryv1.Operation{put("local/a", "\xff")}})
	require.NoError(t, err, "a value may be anything")
}

func notText(cmd *registryv1.Command) bool {
	_, err := proto.Marshal(cmd)
	return err != nil
}

func FuzzDecode(f *testing.F) {
	seed, err := proto.Marshal(&registryv1.Command{Time: at(1), RequestId: "r", Operations: []*registryv1.Operation{put("local/a", "v"), delPrefix("local/")}})
	require.NoError(f, err)
	f.Add(seed)
	f.Add([]byte{0x22, 0x00})
	f.Add(entry(f, put("local/a", "v"), del("local/b")))
	f.Fuzz(func(t *testing.T, data []byte) {
		cmds, err := fsm.DecodeEntry(data)
		if err != nil {
			return
		}
		results, err := fsm.New().Apply(recordtest.New(), 1, cmds...)
		if slices.ContainsFunc(cmds, notText) {
			return // NewProposal refuses it.
		}
		require.NoError(t, err)
		require.Len(t, results, len(cmds))
	})
}

func commands() *rapid.Generator[*registryv1.Command] {
	key := rapid.Custom(func(t *rapid.T) string {
		return rapid.SampledFrom([]string{"local/", "global/"}).Draw(t, "scope") + rapid.StringMatching(`[ab]{1,3}`).Draw(t, "key")
	})
	lease := rapid.SampledFrom([]string{"l1", "l2", "l3"})
	operation := rapid.Custom(func(t *rapid.T) *registryv1.Operation {
		k := key.Draw(t, "key")
		switch rapid.IntRange(0, 12).Draw(t, "kind") {
		case 0:
			return del(k)
		case 1:
			return delPrefix(k)
		case 2:
			return &registryv1.Operation{Op: &registryv1.Operation_Replicate{Replicate: &registryv1.Record{
				Table: kv, Key: k, Value: []byte("r"), Deleted: rapid.Bool().Draw(t, "deleted"), Meta: map[string]string{"a": "b", "c": "d"},
				OriginDatacenter: "far", OriginIndex: rapid.Uint64Range(1, 4).Draw(t, "origin"),
			}}}
		case 3:
			return &registryv1.Operation{Op: &registryv1.Operation_Get{Get: &registryv1.RecordKey{Table: kv, Key: k}}}
		case 4:
			return &registryv1.Operation{Op: &registryv1.Operation_DeleteBelow{DeleteBelow: &registryv1.DeleteBelow{
				Prefix: &registryv1.RecordKey{Table: kv, Key: k}, Limit: rapid.Uint64Range(0, 3).Draw(t, "limit"), Partial: rapid.Bool().Draw(t, "partial"),
			}}}
		case 5:
			return grantLease(lease.Draw(t, "lease"))
		case 6:
			return endLease(lease.Draw(t, "lease"))
		case 7:
			return acquireLock(rapid.SampledFrom([]string{"x", "y"}).Draw(t, "lock"), lease.Draw(t, "lease"), rapid.Int64Range(0, 30).Draw(t, "delay"))
		case 8, 9:
			op := put(k, "leased")
			op.GetPut().Lease = lease.Draw(t, "lease")
			return op
		default:
			return put(k, rapid.StringN(0, 8, 8).Draw(t, "value"))
		}
	})
	comparison := rapid.Custom(func(t *rapid.T) *registryv1.Condition {
		c := &registryv1.Condition{
			Row: &registryv1.RecordKey{Table: kv, Key: key.Draw(t, "compared key")}, Reason: "COMPARED", Chooses: rapid.Bool().Draw(t, "chooses"),
			Comparison: &registryv1.Comparison{Operator: registryv1.Comparison_Operator(rapid.Int32Range(0, 4).Draw(t, "operator"))},
		}
		switch n := rapid.Uint64Range(0, 20).Draw(t, "with"); rapid.IntRange(0, 6).Draw(t, "compared") {
		case 0:
			c.Comparison.With = &registryv1.Comparison_ModifyIndex{ModifyIndex: n}
		case 1:
			c.Comparison.With = &registryv1.Comparison_CreateIndex{CreateIndex: n}
		case 2:
			c.Comparison.With = &registryv1.Comparison_Version{Version: n % 3}
		case 3:
			c.Comparison.With = &registryv1.Comparison_Value{Value: []byte("r")}
		case 4:
			c.Row = &registryv1.RecordKey{Table: registryv1.Table_TABLE_LOCK, Key: "x"}
			c.Comparison.With = &registryv1.Comparison_HeldWith{HeldWith: n}
		case 5:
			c.Row = &registryv1.RecordKey{Table: registryv1.Table_TABLE_LOCK, Key: "x"}
			c.Comparison.With = &registryv1.Comparison_FreeFor{FreeFor: lease.Draw(t, "free for")}
		default:
			c.Comparison.With = &registryv1.Comparison_Exists{Exists: n%2 == 0}
		}
		return c
	})
	return rapid.Custom(func(t *rapid.T) *registryv1.Command {
		cmd := &registryv1.Command{
			Time:       at(rapid.Int64Range(0, 2000).Draw(t, "time")),
			Operations: rapid.SliceOfN(operation, 0, 3).Draw(t, "operations"),
			Detailed:   rapid.Bool().Draw(t, "detailed"),
		}
		if rapid.IntRange(0, 3).Draw(t, "compares") == 0 {
			cmd.Conditions = rapid.SliceOfN(comparison, 1, 3).Draw(t, "comparisons")
			cmd.Otherwise = rapid.SliceOfN(operation, 0, 2).Draw(t, "otherwise")
			cmd.MaxAnswerBytes = rapid.Uint64Range(0, 10).Draw(t, "answer bytes")
		}
		if rapid.Bool().Draw(t, "has id") {
			cmd.RequestId = rapid.StringMatching(`[a-e]{2}`).Draw(t, "id")
		}
		if rapid.IntRange(0, 3).Draw(t, "has condition") == 0 {
			cmd.Conditions = append(cmd.Conditions, &registryv1.Condition{
				Row:         &registryv1.RecordKey{Table: kv, Key: key.Draw(t, "condition key")},
				ModifyIndex: rapid.Uint64Range(0, 20).Draw(t, "condition index"), Reason: "CAS_MISMATCH",
			})
		}
		return cmd
	})
}

func open(t require.TestingT, dir string) *badgerstore.Store {
	options := badgerstore.DefaultOptions(dir, slog.New(slog.DiscardHandler))
	options.BadgerMemtableBytes = 8 << 20
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

// grouped makes log entries of commands, as many in each as may share one.
func grouped(t require.TestingT, cmds []*registryv1.Command) [][]*registryv1.Command {
	var entries [][]*registryv1.Command
	for len(cmds) > 0 {
		n := fsm.Together(cmds, func(cmd *registryv1.Command) fsm.Proposal {
			p, err := fsm.NewProposal(cmd)
			require.NoError(t, err)
			return p
		}, 1<<20)
		n = min(n, 4)
		entries, cmds = append(entries, cmds[:n]), cmds[n:]
	}
	return entries
}

// cloned returns commands that a machine may take over.
func cloned(cmds []*registryv1.Command) []*registryv1.Command {
	out := make([]*registryv1.Command, len(cmds))
	for i, cmd := range cmds {
		out[i] = proto.CloneOf(cmd)
	}
	return out
}

// Badger in batches, Badger restored from a snapshot in the middle, and a plain map fed one by one
// must agree on every row and every outcome.
func TestSnapshotThenRestoreEqualsReplay(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		entries := grouped(rt, rapid.SliceOfN(commands(), 1, 60).Draw(rt, "commands"))
		first := rapid.SampledFrom([]uint64{1, 230, 500}).Draw(rt, "first index")
		cut := rapid.IntRange(0, len(entries)).Draw(rt, "cut")
		oracle, replayed, restored := recordtest.New(), open(rt, t.TempDir()), open(rt, t.TempDir())
		once, machines := fsm.New(), []*fsm.Machine{fsm.New(), fsm.New()}
		defer func() {
			require.NoError(rt, replayed.Close())
			require.NoError(rt, restored.Close())
		}()
		for i := 0; i < len(entries); {
			if i >= cut && restored.Applied() == 0 && replayed.Applied() > 0 {
				var snapshot bytes.Buffer
				require.NoError(rt, replayed.WriteSnapshot(replayed.Applied(), &snapshot))
				require.NoError(rt, restored.Restore(&snapshot))
				require.NoError(rt, restored.View(machines[1].Load))
			}
			size := min(rapid.IntRange(1, 5).Draw(rt, "batch"), len(entries)-i)
			target := []*badgerstore.Store{replayed}
			if restored.Applied() > 0 {
				target = append(target, restored)
			}
			var results [][][]*registryv1.CommandResult
			for n, s := range target {
				batch := s.Begin()
				var outcome [][]*registryv1.CommandResult
				for j := range size {
					index := first + uint64(i+j)
					result, err := machines[n].Apply(batch.At(index), index, cloned(entries[i+j])...)
					require.NoError(rt, err)
					outcome = append(outcome, result)
				}
				require.NoError(rt, batch.Commit())
				results = append(results, outcome)
			}
			for j := range size {
				index := first + uint64(i+j)
				want, err := once.Apply(oracle.At(index), index, cloned(entries[i+j])...)
				require.NoError(rt, err)
				for _, outcome := range results {
					require.Empty(rt, cmp.Diff(want, outcome[j], protocmp.Transform()))
				}
			}
			i += size
		}
		require.Empty(rt, cmp.Diff(oracle.All(), dump(rt, replayed), protocmp.Transform()))
		requireAttached(rt, oracle)
		requireSameHistory(rt, oracle, replayed)
		if restored.Applied() > 0 {
			require.Empty(rt, cmp.Diff(oracle.All(), dump(rt, restored), protocmp.Transform()))
		}
	})
}

// TestMain keeps the property test, which opens two stores per case, within the time a person
// waits.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("rapid.checks"); f != nil && f.Value.String() == f.DefValue {
		_ = flag.Set("rapid.checks", "30")
	}
	os.Exit(m.Run())
}

func TestADecodedCommandIsItsOwn(t *testing.T) {
	for name, size := range map[string]int{"small": 10, "large": 10_000} {
		t.Run(name, func(t *testing.T) {
			operation := put("local/a", strings.Repeat("v", size))
			operation.GetPut().Meta, operation.GetPut().Lease = map[string]string{"k": "v"}, "l"
			want := &registryv1.Command{RequestId: "r", Operations: []*registryv1.Operation{operation}}
			data, err := proto.Marshal(want)
			require.NoError(t, err)
			got, err := fsm.Decode(data)
			require.NoError(t, err)
			clear(data) // The log's buffers are used again.
			require.Empty(t, cmp.Diff(want, got, protocmp.Transform()))
		})
	}
}
