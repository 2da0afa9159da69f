package contracttest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"

	"konsul.dev/pkg/fault"
)

// Replicated is a primary's registry and a secondary's, and what a test may do to them.
type Replicated struct {
	// Source is a connection to the primary's registry, Target one to the secondary's. The
	// secondary's replicator calls over both.
	Source, Target grpc.ClientConnInterface
	// Primary and Secondary are the datacenters' names; FederationID is that of both.
	Primary, Secondary, FederationID string
	// Set and Delete write a global key in the primary, Touch writes something that is not global.
	Set    func(t *testing.T, key, value string)
	Delete func(t *testing.T, key string)
	Touch  func(t *testing.T)
	// Value reads a key's copy in the secondary; empty: there is none.
	Value func(t *testing.T, key string) string
}

// Replication is what a replicator relies on, of the source and of the target. start makes both
// registries, at epoch 1, with nothing but what they make by themselves.
func Replication(t *testing.T, start func(t *testing.T) Replicated) {
	for name, claim := range map[string]func(Replicated, *testing.T){
		"the record is for the own datacenter's replicators":     Replicated.federation,
		"a source refuses what it cannot serve":                  Replicated.refusals,
		"a stream sends what is new, in order, and what is gone": Replicated.stream,
		"a stream goes on after an index":                        Replicated.resume,
		"a commit moves the cursor it expects, or nothing":       Replicated.cursor,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			claim(start(t), t)
		})
	}
}

func (r Replicated) request(since uint64) *federationv1.ReplicationRequest {
	return &federationv1.ReplicationRequest{
		SourceDc: r.Primary, TargetDc: r.Secondary, LastReplicatedIndex: int64(since), //nolint:gosec // an index of a test
		FederationId: r.FederationID, Epoch: 1, Heartbeat: durationpb.New(100 * time.Millisecond),
	}
}

func (r Replicated) open(t *testing.T, req *federationv1.ReplicationRequest) grpc.ServerStreamingClient[federationv1.ReplicationResponse] {
	t.Helper()
	stream, err := federationv1.NewReplicationServiceClient(r.Source).Replicate(deadline(t), req)
	require.NoError(t, err)
	return stream
}

func (r Replicated) federation(t *testing.T) {
	resp, err := federationv1.NewFederationServiceClient(r.Target).GetFederation(deadline(t), &federationv1.GetFederationRequest{})
	require.NoError(t, err)
	require.Equal(t, r.FederationID, resp.GetFederation().GetId())
	require.Equal(t, r.Primary, resp.GetFederation().GetPrimaryDatacenter())
	require.EqualValues(t, 1, resp.GetFederation().GetEpoch())
	_, err = federationv1.NewFederationServiceClient(r.Source).GetFederation(deadline(t), &federationv1.GetFederationRequest{})
	refused(t, fault.PermissionDenied, "PEER_DENIED", err)
}

func (r Replicated) refusals(t *testing.T) {
	why := func(change func(*federationv1.ReplicationRequest)) error {
		req := r.request(0)
		change(req)
		_, err := r.open(t, req).Recv()
		return err
	}
	err := why(func(q *federationv1.ReplicationRequest) { q.Heartbeat = durationpb.New(99 * time.Millisecond) })
	require.Equal(t, fault.InvalidArgument, fault.CodeOf(err), "%v", err)
	refused(t, fault.FailedPrecondition, "OTHER_FEDERATION", why(func(q *federationv1.ReplicationRequest) { q.FederationId = "other" }))
	refused(t, fault.FailedPrecondition, "SOURCE_INDEX_BEHIND", why(func(q *federationv1.ReplicationRequest) { q.LastReplicatedIndex = 1 << 40 }))
	refused(t, fault.FailedPrecondition, "EPOCH_SUPERSEDED", why(func(q *federationv1.ReplicationRequest) { q.Epoch = 2 }))
	refused(t, fault.FailedPrecondition, "WRONG_SOURCE", why(func(q *federationv1.ReplicationRequest) { q.SourceDc = "elsewhere" }))
	r.Source, r.Primary = r.Target, r.Secondary
	refused(t, fault.FailedPrecondition, "NOT_PRIMARY", why(func(*federationv1.ReplicationRequest) {}))
}

// batch receives until the source says that it has sent all there was.
func batch(t *testing.T, stream grpc.ServerStreamingClient[federationv1.ReplicationResponse]) (entries []*federationv1.ReplicatedEntry, index uint64) {
	t.Helper()
	for {
		m, err := stream.Recv()
		require.NoError(t, err)
		require.EqualValues(t, 1, m.GetEpoch())
		require.NotNil(t, m.GetSourceTime())
		require.False(t, m.GetFullSyncRequired(), "everything is in reach")
		entries = append(entries, m.GetEntries()...)
		if m.GetComplete() {
			return entries, uint64(m.GetCurrentIndex()) //nolint:gosec // an index is no negative number
		}
	}
}

// next receives until there is an entry.
func next(t *testing.T, stream grpc.ServerStreamingClient[federationv1.ReplicationResponse]) (entries []*federationv1.ReplicatedEntry, index uint64) {
	t.Helper()
	for len(entries) == 0 {
		entries, index = batch(t, stream)
	}
	return entries, index
}

func (r Replicated) stream(t *testing.T) {
	stream := r.open(t, r.request(0))
	batch(t, stream)
	_, before := batch(t, stream)
	r.Touch(t)
	for after := before; after == before; {
		var entries []*federationv1.ReplicatedEntry
		entries, after = batch(t, stream)
		require.Empty(t, entries, "what is not global is not sent, but moves the index")
		require.GreaterOrEqual(t, after, before)
	}
	r.Set(t, "contract/a", "1")
	entries, index := next(t, stream)
	require.Len(t, entries, 1)
	require.Equal(t, federationv1.ReplicatedEntry_KV, entries[0].GetType())
	require.Equal(t, "contract/a", bare(entries[0].GetKey()))
	require.Equal(t, "1", string(entries[0].GetValue()))
	require.Equal(t, r.Primary, entries[0].GetOriginDc())
	require.EqualValues(t, 1, entries[0].GetOriginEpoch())
	require.LessOrEqual(t, entries[0].GetModifyIndex(), int64(index)) //nolint:gosec // an index of a test
	require.Positive(t, entries[0].GetModifyIndex())

	r.Delete(t, "contract/a")
	entries, _ = next(t, stream)
	require.Len(t, entries, 1)
	require.True(t, entries[0].GetDeleted())
	require.Equal(t, "contract/a", bare(entries[0].GetKey()))
}

func (r Replicated) resume(t *testing.T) {
	r.Set(t, "contract/a", "1")
	_, index := batch(t, r.open(t, r.request(0)))
	again, _ := batch(t, r.open(t, r.request(index)))
	require.Empty(t, again, "what was sent up to an index is not sent after it")
	r.Set(t, "contract/b", "2")
	r.Set(t, "contract/c", "3")
	var keys []string
	for stream := r.open(t, r.request(index)); len(keys) < 2; {
		entries, _ := next(t, stream)
		for _, e := range entries {
			keys = append(keys, bare(e.GetKey()))
		}
	}
	require.Equal(t, []string{"contract/b", "contract/c"}, keys)
}

func (r Replicated) cursor(t *testing.T) {
	target := federationv1.NewReplicationServiceClient(r.Target)
	stored := func() *federationv1.ReplicationCursor {
		resp, err := target.GetCursor(deadline(t), &federationv1.GetCursorRequest{SourceDc: r.Primary})
		require.NoError(t, err)
		return resp.GetCursor()
	}
	apply := func(expected, index uint64, entries ...*federationv1.ReplicatedEntry) error {
		_, err := target.ApplyReplicated(deadline(t), &federationv1.ApplyReplicatedRequest{
			SourceDc: r.Primary, ExpectedIndex: expected, Entries: entries,
			Cursor: &federationv1.ReplicationCursor{SourceDatacenter: r.Primary, Index: index, Epoch: 1},
		})
		return err
	}
	entry := func(value string, index int64) *federationv1.ReplicatedEntry {
		return &federationv1.ReplicatedEntry{
			Key: "global/contract/x", Value: []byte(value), ModifyIndex: index, OriginDc: r.Primary, OriginEpoch: 1, Deleted: value == "",
		}
	}
	require.Zero(t, stored().GetIndex(), "nothing was copied yet")
	require.NoError(t, apply(0, 0, entry("1", 40)), "a batch that is not the last leaves the cursor where it is")
	require.Zero(t, stored().GetIndex())
	require.NoError(t, apply(0, 50, entry("2", 45)))
	require.EqualValues(t, 50, stored().GetIndex())
	require.EqualValues(t, 1, stored().GetEpoch())
	require.Equal(t, "2", r.Value(t, "contract/x"))

	refused(t, fault.Aborted, "CURSOR_MOVED", apply(0, 60, entry("3", 55)))
	refused(t, fault.Aborted, "CURSOR_MOVED", apply(49, 60, entry("3", 55)))
	require.EqualValues(t, 50, stored().GetIndex())
	require.Equal(t, "2", r.Value(t, "contract/x"), "what was refused has changed nothing")

	require.NoError(t, apply(50, 70), "the cursor moves alone, too")
	require.EqualValues(t, 70, stored().GetIndex())
	require.NoError(t, apply(70, 80, entry("", 75)))
	require.Empty(t, r.Value(t, "contract/x"))
}

// bare returns a key without the scope that entries carry in front of it.
func bare(key string) string {
	const scope = "global/"
	if len(key) > len(scope) && key[:len(scope)] == scope {
		return key[len(scope):]
	}
	return key
}
