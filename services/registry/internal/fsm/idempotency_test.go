package fsm_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/requestid"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/record/recordtest"
)

// entry encodes a log entry of one command for each operation.
func entry(t require.TestingT, operations ...*registryv1.Operation) []byte {
	e := &registryv1.Command{Time: at(7), Epoch: 3}
	for _, op := range operations {
		p, err := fsm.NewProposal(&registryv1.Command{Operations: []*registryv1.Operation{op}})
		require.NoError(t, err)
		e.Batch = append(e.Batch, p.Command)
	}
	data, err := proto.Marshal(e)
	require.NoError(t, err)
	return data
}

func request(id string, op *registryv1.Operation) *registryv1.Command {
	return &registryv1.Command{Time: at(1), RequestId: id, Operations: []*registryv1.Operation{op}}
}

func TestARequestAppliesOnce(t *testing.T) {
	for name, id := range map[string]string{"uuid": uuid.NewString(), "other": "r1"} {
		t.Run(name, func(t *testing.T) {
			s, m := recordtest.New(), fsm.New()
			cmd := request(id, put("local/a", "1"))
			flagged := put("local/b", "1")
			flagged.GetPut().Flags, cmd.Epoch = 7, 3
			cmd.Operations = append(cmd.Operations, flagged)
			first, err := m.Apply(s.At(1), 1, request("before", put("local/z", "1")), proto.CloneOf(cmd), proto.CloneOf(cmd))
			require.NoError(t, err)
			require.Empty(t, cmp.Diff(first[1], first[2], protocmp.Transform()), "even within one entry")
			_, err = m.Apply(s.At(2), 2, &registryv1.Command{Time: at(2), Operations: []*registryv1.Operation{put("local/a", "2")}})
			require.NoError(t, err)
			require.True(t, m.Seen(id))

			restarted := fsm.New()
			require.NoError(t, restarted.Load(s))
			for index, m := range map[uint64]*fsm.Machine{3: m, 4: restarted} {
				repeated := proto.CloneOf(cmd)
				repeated.Time, repeated.Epoch = at(9), 4
				again, err := m.Apply(s.At(index), index, repeated)
				require.NoError(t, err)
				require.Empty(t, cmp.Diff(fsm.Answer(first[1]), again[0], protocmp.Transform()))
			}
			row, err := s.Get(kv, "local/a")
			require.NoError(t, err)
			require.Equal(t, "2", string(row.GetValue()))
		})
	}
}

func TestARequestIDThatWasUsedForSomethingElseChangesNothing(t *testing.T) {
	s, m := recordtest.New(), fsm.New()
	ask := func(digest uint64, value string) *registryv1.Command {
		cmd := request("r", put("local/a", value))
		cmd.Digest = digest
		return cmd
	}
	first, err := m.Apply(s.At(1), 1, ask(7, "1"), ask(8, "2"))
	require.NoError(t, err)
	require.Equal(t, fsm.FailedReused, first[1].GetFailedReason(), "even within one entry")
	restarted := fsm.New()
	require.NoError(t, restarted.Load(s))
	for index, m := range map[uint64]*fsm.Machine{2: m, 3: restarted} {
		again, err := m.Apply(s.At(index), index, ask(7, "1"), ask(8, "2"), ask(0, "1"))
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(fsm.Answer(first[0]), again[0], protocmp.Transform()))
		require.Empty(t, cmp.Diff(first[1], again[1], protocmp.Transform()))
		require.Empty(t, cmp.Diff(fsm.Answer(first[0]), again[2], protocmp.Transform()), "a command of an older server says nothing")
	}
	row, err := s.Get(kv, "local/a")
	require.NoError(t, err)
	require.Equal(t, "1", string(row.GetValue()))
}

func TestADigestIsOfWhatWasAsked(t *testing.T) {
	ask := func(change func(*registryv1.SetRequest)) uint64 {
		req := &registryv1.SetRequest{Key: "k", Value: []byte("v"), Meta: map[string]string{"a": "1", "b": "2", "c": "3"}, RequestId: "r"}
		change(req)
		return fsm.DigestOf(req)
	}
	same := ask(func(*registryv1.SetRequest) {})
	for range 20 {
		require.Equal(t, same, ask(func(*registryv1.SetRequest) {}), "whatever the order of a map")
	}
	require.Equal(t, same, ask(func(r *registryv1.SetRequest) { r.Datacenter = "elsewhere" }))
	require.NotEqual(t, same, ask(func(r *registryv1.SetRequest) { r.Value = []byte("w") }))
	require.NotEqual(t, same, ask(func(r *registryv1.SetRequest) { r.Meta["a"] = "2" }))
	require.Zero(t, ask(func(r *registryv1.SetRequest) { r.RequestId = "" }))
}

func TestAFailedRequestStaysFailed(t *testing.T) {
	s, m := recordtest.New(), fsm.New()
	cmd := request("r", put("local/a", "1"))
	cmd.Conditions = []*registryv1.Condition{{Row: &registryv1.RecordKey{Table: kv, Key: "local/b"}, ModifyIndex: 1, Reason: "CAS_MISMATCH"}}
	_, err := m.Apply(s.At(1), 1, request("other", put("local/b", "1")))
	require.NoError(t, err)
	_, err = m.Apply(s.At(2), 2, request("another", put("local/b", "2")))
	require.NoError(t, err)
	for index := uint64(3); index < 5; index++ {
		results, err := m.Apply(s.At(index), index, proto.CloneOf(cmd))
		require.NoError(t, err)
		require.Equal(t, "CAS_MISMATCH", results[0].GetFailedReason())
		require.EqualValues(t, 3, results[0].GetIndex())
	}
}

// A record is kept for as long as its kind is, and then forgotten bit by bit, whoever restarts
// meanwhile.
func TestOldRecordsAreForgotten(t *testing.T) {
	for name, c := range map[string]struct {
		minted    bool
		retention time.Duration
	}{
		"named": {false, fsm.NamedRetention}, "minted": {true, requestid.Retention},
	} {
		t.Run(name, func(t *testing.T) {
			s, m := recordtest.New(), fsm.New()
			index := uint64(0)
			apply := func(id string, at *timestamppb.Timestamp, minted bool) {
				index++
				cmd := request(id, put("local/a", "1"))
				cmd.Time, cmd.Minted = at, minted
				_, err := m.Apply(s.At(index), index, cmd)
				require.NoError(t, err)
			}
			for i := range 500 {
				apply(fmt.Sprintf("r%d", i), at(1), c.minted)
			}
			apply("other", at(1), !c.minted)
			apply("in time", at(1+int64(c.retention/time.Second)), c.minted)
			require.True(t, m.Seen("r0"))

			m = fsm.New()
			require.NoError(t, m.Load(s))
			later := at(2 + int64(c.retention/time.Second))
			for i := range 130 {
				apply(fmt.Sprintf("later%d", i), later, c.minted)
			}
			require.False(t, m.Seen("r499"))
			require.True(t, m.Seen("in time"))
			require.Equal(t, !c.minted, !m.Seen("other"), "a kind does not wait for the other one")
			require.Len(t, slices.DeleteFunc(s.All(), func(r *registryv1.Record) bool { return r.GetTable() != registryv1.Table_TABLE_REQUEST }),
				131+map[bool]int{true: 1}[m.Seen("other")])
		})
	}
}

// One entry has commands of both kinds, and each is answered from its record.
func TestAnEntryHasNamedAndMintedRequests(t *testing.T) {
	s, m := recordtest.New(), fsm.New()
	named, minted := request("r", put("local/a", "1")), request(requestid.New(), put("local/b", "1"))
	minted.Minted = true
	first, err := m.Apply(s.At(1), 1, proto.CloneOf(named), proto.CloneOf(minted))
	require.NoError(t, err)
	m = fsm.New()
	require.NoError(t, m.Load(s))
	// Whoever repeats a minted id by hand, or by way of an older server, has the same record.
	minted.Minted = false
	again, err := m.Apply(s.At(2), 2, named, minted)
	require.NoError(t, err)
	for i := range first {
		require.Empty(t, cmp.Diff(fsm.Answer(first[i]), again[i], protocmp.Transform()))
	}
}

func TestNoMoreRecordsAreKeptThanTheBound(t *testing.T) {
	s, m := recordtest.New(), fsm.New()
	const each = 1 << 10
	for index := uint64(1); index <= fsm.RecordsKept/each+2; index++ {
		cmds := make([]*registryv1.Command, each)
		for i := range cmds {
			cmds[i] = &registryv1.Command{Time: at(1), RequestId: fmt.Sprintf("%d/%d", index, i)}
		}
		_, err := m.Apply(s.At(index), index, cmds...)
		require.NoError(t, err)
	}
	require.False(t, m.Seen("2/0"))
	require.True(t, m.Seen("3/0"))
	require.Len(t, s.All(), fsm.RecordsKept/each)
}

func TestEntriesKeepConflictingCommandsApart(t *testing.T) {
	proposals := func(ops ...*registryv1.Operation) []fsm.Proposal {
		var out []fsm.Proposal
		for _, op := range ops {
			p, err := fsm.NewProposal(&registryv1.Command{Operations: []*registryv1.Operation{op}})
			require.NoError(t, err)
			out = append(out, p)
		}
		return out
	}
	for name, c := range map[string]struct {
		in       []fsm.Proposal
		maxBytes int
		want     int
	}{
		"different rows":  {proposals(put("local/a", "1"), put("local/b", "1"), del("local/c")), 1 << 20, 3},
		"put and deleted": {proposals(put("local/a", "1"), put("local/b", "1"), del("local/a")), 1 << 20, 2},
		"deleted and put": {proposals(del("local/a"), put("local/b", "1"), put("local/a", "1")), 1 << 20, 2},
		"put and swept":   {proposals(put("local/a", "1"), put("local/b", "1"), delPrefix("local/")), 1 << 20, 2},
		"swept and put":   {proposals(delPrefix("local/"), delPrefix("global/"), put("local/a", "1")), 1 << 20, 2},
		"same row":        {proposals(put("local/a", "1"), put("local/b", "1"), put("local/a", "2")), 1 << 20, 2},
		"overtaken":       {proposals(put("local/a", "1"), put("local/a", "2"), put("local/b", "1")), 1 << 20, 2},
		"too much":        {proposals(put("local/a", "1"), put("local/b", "1")), 8, 1},
		"large by itself": {proposals(put("local/a", "0123456789")), 8, 1},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, fsm.Together(c.in, itself, c.maxBytes))
		})
	}
	twice, err := fsm.NewProposal(&registryv1.Command{Operations: []*registryv1.Operation{put("local/a", "1"), put("local/a", "2")}})
	require.NoError(t, err)
	require.Equal(t, 1, fsm.Together([]fsm.Proposal{twice, twice}, itself, 1<<20), "a command does not conflict with itself")

	same := []fsm.Proposal{}
	for _, key := range []string{"local/a", "local/b"} {
		p, err := fsm.NewProposal(request("r", put(key, "1")))
		require.NoError(t, err)
		same = append(same, p)
	}
	require.Equal(t, 1, fsm.Together(same, itself, 1<<20), "one request twice")
}

// A transaction's answer holds as of its entry's index, so nothing in the entry may write what it
// read.
func TestWhatIsReadIsNotWrittenInTheSameEntry(t *testing.T) {
	get := func(key string) *registryv1.Operation {
		return &registryv1.Operation{Op: &registryv1.Operation_Get{Get: &registryv1.RecordKey{Table: kv, Key: key}}}
	}
	compares := &registryv1.Command{
		Operations: []*registryv1.Operation{put("local/b", "1")},
		Conditions: []*registryv1.Condition{{Row: &registryv1.RecordKey{Table: kv, Key: "local/a"}}},
	}
	reads := &registryv1.Command{Operations: []*registryv1.Operation{get("local/a")}}
	writes := &registryv1.Command{Operations: []*registryv1.Operation{put("local/a", "1")}}
	for name, c := range map[string]struct {
		in   []*registryv1.Command
		want int
	}{
		"read, then written":     {[]*registryv1.Command{reads, writes}, 1},
		"written, then read":     {[]*registryv1.Command{writes, reads}, 1},
		"compared, then written": {[]*registryv1.Command{compares, writes}, 1},
		"read by many":           {[]*registryv1.Command{reads, reads, compares}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			var in []fsm.Proposal
			for _, cmd := range c.in {
				p, err := fsm.NewProposal(cmd)
				require.NoError(t, err)
				in = append(in, p)
			}
			require.Equal(t, c.want, fsm.Together(in, itself, 1<<20))
		})
	}
}

func itself(p fsm.Proposal) fsm.Proposal { return p }

// What conflicts waits, and what conflicts with that behind it; others overtake it.
func TestEntriesLeaveOutWhatConflicts(t *testing.T) {
	var in []fsm.Proposal
	var names []string
	for _, ops := range [][]*registryv1.Operation{
		{put("local/a", "1")}, {put("local/a", "2"), put("local/b", "1")}, {put("local/c", "1")}, {put("local/b", "2")}, {delPrefix("local/d")}, {put("local/e", "1")},
	} {
		p, err := fsm.NewProposal(&registryv1.Command{Operations: ops})
		require.NoError(t, err)
		in, names = append(in, p), append(names, string(p.Command))
	}
	rounds := [][]int{{0, 2, 5}, {1}, {3}, {4}}
	for _, round := range rounds {
		n := fsm.Together(in, itself, 1<<20)
		require.Len(t, round, n)
		for i, want := range round {
			require.Equal(t, names[want], string(in[i].Command))
		}
		in = in[n:]
	}
	require.Empty(t, in)
}

func TestAnEntryGivesItsCommandsTimeAndEpoch(t *testing.T) {
	cmds, err := fsm.DecodeEntry(entry(t, put("local/a", "1"), put("local/b", "2")))
	require.NoError(t, err)
	s := recordtest.New()
	results, err := fsm.New().Apply(s.At(9), 9, cmds...)
	require.NoError(t, err)
	require.Len(t, results, 2)
	for _, row := range s.All() {
		require.EqualValues(t, 9, row.GetModifyIndex())
		require.EqualValues(t, 3, row.GetOriginEpoch())
		require.Empty(t, cmp.Diff(at(7), row.GetOriginTime(), protocmp.Transform()))
	}

	nested, err := proto.Marshal(&registryv1.Command{Batch: [][]byte{entry(t, put("local/a", "1"))}})
	require.NoError(t, err)
	_, err = fsm.DecodeEntry(nested)
	require.ErrorIs(t, err, fsm.ErrUnknownCommand)
}
