package fsm_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/badgerstore"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/fsm/fsmtest"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/record/recordtest"
)

const (
	leases = registryv1.Table_TABLE_LEASE
	locks  = registryv1.Table_TABLE_LOCK
)

func grantLease(id string) *registryv1.Operation {
	return &registryv1.Operation{Op: &registryv1.Operation_Put{Put: &registryv1.Record{Table: leases, Key: fsm.LeasePrefix + id, Value: []byte(id)}}}
}

func endLease(id string) *registryv1.Operation {
	return &registryv1.Operation{Op: &registryv1.Operation_EndLease{EndLease: &registryv1.EndLease{Id: id}}}
}

func acquireLock(name, lease string, delay int64) *registryv1.Operation {
	return &registryv1.Operation{Op: &registryv1.Operation_AcquireLock{AcquireLock: &registryv1.AcquireLock{
		Name: name, Lease: lease, Delay: &durationpb.Duration{Seconds: delay}, Holder: "h",
	}}}
}

func leased(key, lease string) *registryv1.Operation {
	op := put(key, "v")
	op.GetPut().Lease = lease
	return op
}

func do(operations ...*registryv1.Operation) *registryv1.Command {
	return &registryv1.Command{Time: at(100), Operations: operations}
}

// attached returns the rows that a store says are attached to leases.
func attached(t require.TestingT, s *recordtest.Store) []string {
	var out []string
	for _, r := range s.All() {
		if id, _, ok := cutAttached(r); ok {
			key, err := fsm.Attached(id, r.GetKey())
			require.NoError(t, err)
			out = append(out, id+" "+key.GetTable().String()+" "+key.GetKey())
		}
	}
	return out
}

func cutAttached(r *registryv1.Record) (id, rest string, ok bool) {
	if r.GetTable() != leases || r.GetDeleted() {
		return "", "", false
	}
	for _, id := range []string{"l1", "l2", "l3"} {
		prefix := fsm.AttachedPrefix(id)
		if len(r.GetKey()) > len(prefix) && r.GetKey()[:len(prefix)] == prefix {
			return id, r.GetKey()[len(prefix):], true
		}
	}
	return "", "", false
}

// requireAttached fails unless the rows about what is attached are those of the rows with a lease.
func requireAttached(t require.TestingT, s *recordtest.Store) {
	var want []string
	for _, r := range s.All() {
		if record.Live(r) && r.GetLease() != "" {
			want = append(want, r.GetLease()+" "+r.GetTable().String()+" "+r.GetKey())
		}
	}
	got := attached(t, s)
	slices.Sort(want)
	slices.Sort(got)
	require.Equal(t, want, got)
}

// requireSameHistory fails unless both know the same versions of every key.
func requireSameHistory(t *rapid.T, oracle *recordtest.Store, s *badgerstore.Store) {
	for _, row := range oracle.All() {
		if row.GetTable() != kv {
			continue
		}
		read := func(r record.Reader) (versions []*registryv1.Record) {
			_, err := r.History(kv, row.GetKey(), func(v *registryv1.Record) bool {
				versions = append(versions, v)
				return true
			})
			require.NoError(t, err)
			return versions
		}
		require.NoError(t, s.View(func(r record.Reader) error {
			require.Empty(t, cmp.Diff(read(oracle), read(r), protocmp.Transform()), row.GetKey())
			return nil
		}))
	}
}

func TestALeaseTakesItsRowsWithIt(t *testing.T) {
	s := recordtest.New()
	apply(t, s, 1, do(grantLease("l1"), grantLease("l2")))
	apply(t, s, 2, do(leased("local/a", "l1"), leased("local/b", "l1"), leased("local/c", "l1"), leased("local/d", "l2")))
	apply(t, s, 3, do(put("local/b", "detached"), leased("local/c", "l2"), del("local/d")))
	require.Equal(t, []string{"l1 TABLE_KV local/a", "l2 TABLE_KV local/c"}, attached(t, s))
	result := apply(t, s, 4, do(endLease("l1")))
	require.EqualValues(t, 2, result.GetChanged())
	live := map[string]bool{}
	require.NoError(t, s.Scan(kv, record.ScanOptions{}, func(r *registryv1.Record) bool {
		live[r.GetKey()] = true
		return true
	}))
	require.Equal(t, map[string]bool{"local/b": true, "local/c": true}, live)
	requireAttached(t, s)
	require.Zero(t, apply(t, s, 5, do(endLease("l1"))).GetChanged(), "what has ended does not end again")
}

func TestALeaseOfManyEndsInPartsLocksFirst(t *testing.T) {
	s := recordtest.New()
	apply(t, s, 1, do(grantLease("l1"), acquireLock("x", "l1", 15), acquireLock("y", "l1", 0), acquireLock("z", "l1", 15)))
	apply(t, s, 2, do(leased("local/a", "l1"), leased("local/b", "l1"), leased("local/c", "l1"), leased("local/d", "l1"), leased("local/e", "l1")))
	part := endLease("l1")
	part.GetEndLease().Limit = 2
	left := func() (n int) {
		for _, r := range s.All() {
			if record.Live(r) && r.GetLease() == "l1" {
				n++
			}
		}
		return n
	}
	row := func(key *registryv1.RecordKey) *registryv1.Record {
		r, err := s.Get(key.GetTable(), key.GetKey())
		require.NoError(t, err)
		return r
	}
	require.True(t, apply(t, s, 3, do(part)).GetMore())
	require.Equal(t, 6, left(), "two rows at a time")
	require.Empty(t, lockAt(t, s).GetLease(), "locks come first")
	require.False(t, record.Live(row(fsm.LeaseRow("l1"))), "nothing can be attached from the first part on")
	require.True(t, record.Live(row(fsm.EndingRow("l1"))))
	requireAttached(t, s)

	require.Zero(t, apply(t, s, 4, do(endLease("l1"))).GetChanged(), "a command of old leaves what it does not know of")
	require.True(t, apply(t, s, 5, do(part)).GetMore())
	require.Equal(t, 4, left())
	apply(t, s, 6, do(put("local/c", "kept"), leased("local/d", "l1")))
	require.True(t, apply(t, s, 7, do(part)).GetMore())
	require.False(t, apply(t, s, 8, do(part)).GetMore())
	require.Zero(t, left())
	require.False(t, record.Live(row(fsm.EndingRow("l1"))))
	requireAttached(t, s)
	kept, err := s.Get(kv, "local/c")
	require.NoError(t, err)
	require.Equal(t, "kept", string(kept.GetValue()), "what was written anew in between is not the lease's")
	require.Zero(t, apply(t, s, 9, do(part)).GetChanged())
}

func TestOneCommandDeletesNoMoreThanItsBound(t *testing.T) {
	s := recordtest.New()
	apply(t, s, 1, do(put("local/a1", ""), put("local/a2", ""), put("local/b1", ""), put("local/b2", "")))
	cmd := do()
	for _, prefix := range []string{"local/a", "local/b"} {
		cmd.Operations = append(cmd.Operations, &registryv1.Operation{Op: &registryv1.Operation_DeleteBelow{DeleteBelow: &registryv1.DeleteBelow{
			Prefix: &registryv1.RecordKey{Table: kv, Key: prefix}, Limit: 2,
		}}})
	}
	cmd.MaxDeleted = 3
	result := apply(t, s, 2, cmd)
	require.Equal(t, fsm.FailedTooMuch, result.GetFailedReason())
	require.Equal(t, "local/b", result.GetFailedRow().GetKey())
	require.Zero(t, result.GetChanged())
	cmd.MaxDeleted = 4
	require.EqualValues(t, 4, apply(t, s, 3, cmd).GetChanged())
}

func lockAt(t *testing.T, s *recordtest.Store) *registryv1.Lock {
	t.Helper()
	row, err := s.Get(locks, "x")
	require.NoError(t, err)
	lock, err := fsm.DecodeLock(row)
	require.NoError(t, err)
	return lock
}

func freeFor(lease string) *registryv1.Condition {
	return &registryv1.Condition{
		Row: &registryv1.RecordKey{Table: locks, Key: "x"}, Reason: "HELD",
		Comparison: &registryv1.Comparison{With: &registryv1.Comparison_FreeFor{FreeFor: lease}},
	}
}

func TestATokenIsTheIndexOfTheAcquisition(t *testing.T) {
	s := recordtest.New()
	acquire := func(index uint64, second int64, lease string) string {
		cmd := do(acquireLock("x", lease, 15))
		cmd.Time, cmd.Conditions = at(second), []*registryv1.Condition{freeFor(lease)}
		return apply(t, s, index, cmd).GetFailedReason()
	}
	apply(t, s, 1, do(grantLease("l1"), grantLease("l2")))
	require.Empty(t, acquire(2, 100, "l1"))
	require.Equal(t, "HELD", acquire(3, 100, "l2"))
	require.Empty(t, acquire(4, 100, "l1"))
	require.EqualValues(t, 2, lockAt(t, s).GetToken(), "who has it keeps its token")

	end := do(endLease("l1"))
	end.Time = at(200)
	apply(t, s, 5, end)
	require.Empty(t, lockAt(t, s).GetLease())
	require.Equal(t, 215*time.Second, time.Duration(lockAt(t, s).GetFreeAt().GetSeconds())*time.Second)
	require.Equal(t, "HELD", acquire(6, 214, "l2"))
	require.Equal(t, "HELD", acquire(7, 214, "l1"), "not even who lost it has it back")
	require.Empty(t, acquire(8, 215, "l2"))
	require.EqualValues(t, 8, lockAt(t, s).GetToken())
	row, err := s.Get(locks, "x")
	require.NoError(t, err)
	require.EqualValues(t, 8, row.GetCreateIndex())
	requireAttached(t, s)
}

func TestACommandDoesOtherwiseOnlyWhenItMayChoose(t *testing.T) {
	s := recordtest.New()
	cmd := &registryv1.Command{
		Detailed: true, Operations: []*registryv1.Operation{put("local/a", "1")}, Otherwise: []*registryv1.Operation{put("local/b", "1"), {Op: &registryv1.Operation_Get{Get: &registryv1.RecordKey{Table: kv, Key: "local/b"}}}},
		Conditions: []*registryv1.Condition{
			{Row: &registryv1.RecordKey{Table: kv, Key: "local/c"}, Reason: "CHOSEN", Chooses: true, Comparison: &registryv1.Comparison{With: &registryv1.Comparison_Exists{Exists: true}}},
			{Row: fsm.LeaseRow("l1"), Reason: "LEASE", Comparison: &registryv1.Comparison{With: &registryv1.Comparison_Exists{Exists: true}}},
		},
	}
	result := apply(t, s, 1, cmd)
	require.Equal(t, "LEASE", result.GetFailedReason(), "what fails a command comes before what chooses")
	require.Empty(t, s.All())
	cmd.Conditions = cmd.GetConditions()[:1]
	result = apply(t, s, 2, cmd)
	require.Equal(t, "CHOSEN", result.GetFailedReason())
	require.Len(t, result.GetOutcomes(), 2)
	require.Equal(t, "1", string(result.GetOutcomes()[1].GetRow().GetValue()))
	require.Len(t, s.All(), 1)
}

func TestACommandThatWouldDoTooMuchDoesNothing(t *testing.T) {
	s := recordtest.New()
	apply(t, s, 1, do(put("local/a1", "1234"), put("local/a2", "1234"), put("local/a3", "1234")))
	below := func(partial bool, limit uint64) *registryv1.Command {
		return do(put("local/new", "x"), &registryv1.Operation{Op: &registryv1.Operation_DeleteBelow{DeleteBelow: &registryv1.DeleteBelow{
			Prefix: &registryv1.RecordKey{Table: kv, Key: "local/a"}, Limit: limit, Partial: partial,
		}}})
	}
	require.Equal(t, fsm.FailedTooMuch, apply(t, s, 2, below(false, 2)).GetFailedReason())
	require.Len(t, s.All(), 3)
	read := do(&registryv1.Operation{Op: &registryv1.Operation_Get{Get: &registryv1.RecordKey{Table: kv, Key: "local/a1"}}}, put("local/new", "x"))
	read.MaxAnswerBytes = 3
	require.Equal(t, fsm.FailedTooMuch, apply(t, s, 3, read).GetFailedReason())
	require.Len(t, s.All(), 3)
	result := apply(t, s, 4, below(true, 2))
	require.True(t, result.GetMore())
	require.EqualValues(t, 3, result.GetChanged())
	result = apply(t, s, 5, below(true, 2))
	require.False(t, result.GetMore())
}

func TestUnknownPartsOfNewKindsAreErrors(t *testing.T) {
	future := func(m proto.Message) { m.ProtoReflect().SetUnknown([]byte{0xf8, 0x06, 0x01}) }
	end := endLease("l1")
	future(end.GetEndLease())
	compared := freeFor("l1")
	future(compared.GetComparison())
	operator := freeFor("l1")
	operator.Comparison.Operator = 9
	for _, cmd := range []*registryv1.Command{
		do(end),
		{Otherwise: []*registryv1.Operation{end}},
		{Otherwise: []*registryv1.Operation{{}}},
		{Conditions: []*registryv1.Condition{compared}},
		{Conditions: []*registryv1.Condition{operator}},
		{Conditions: []*registryv1.Condition{{Row: fsm.LeaseRow("l1"), Comparison: &registryv1.Comparison{}}}},
	} {
		_, err := fsmtest.Apply(recordtest.New(), 1, cmd)
		require.ErrorIs(t, err, fsm.ErrUnknownCommand)
	}
}

func TestAcquisitionsOfOneLockNeverShareAnEntry(t *testing.T) {
	var proposals []fsm.Proposal
	for _, cmd := range []*registryv1.Command{do(acquireLock("x", "l1", 0)), do(del("local/a")), do(acquireLock("x", "l2", 0))} {
		p, err := fsm.NewProposal(cmd)
		require.NoError(t, err)
		proposals = append(proposals, p)
	}
	require.Equal(t, 2, fsm.Together(proposals, itself, 1<<20))
	require.EqualValues(t, 2, fsm.Needs(do(leased("local/a", "l1"))))
	require.EqualValues(t, 1, fsm.Needs(do(put("local/a", "1"))))
}
