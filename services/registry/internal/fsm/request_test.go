package fsm_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

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

func TestOldRequestsAreForgotten(t *testing.T) {
	s, m := recordtest.New(), fsm.New()
	index := uint64(0)
	for range 500 {
		index++
		_, err := m.Apply(s.At(index), index, request(fmt.Sprintf("r%d", index), put("local/a", "1")))
		require.NoError(t, err)
	}
	later := at(1 + int64(2*fsm.RequestRetention/time.Second))
	for range 130 {
		index++
		cmd := request(uuid.NewString(), put("local/a", "2"))
		cmd.Time = later
		_, err := m.Apply(s.At(index), index, cmd)
		require.NoError(t, err)
	}
	require.False(t, m.Seen("r500"))
	require.Len(t, s.All(), 1+130, "the key and the fresh requests")
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

// A transaction's answer holds as of its entry's index, so nothing in the entry may write what it read.
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
