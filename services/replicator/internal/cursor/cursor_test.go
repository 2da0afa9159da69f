package cursor_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/services/replicator/internal/cursor"
)

// then is a time by the source's clock, here one by the own.
var (
	then = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	here = time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC)
)

func TestAccept(t *testing.T) {
	at := cursor.Position{Source: "us-east", Index: 10, Epoch: 2, Time: then, Current: here}
	later, arrived := then.Add(time.Second), here.Add(time.Minute)
	for name, c := range map[string]struct {
		message *federationv1.ReplicationResponse
		want    cursor.Position
		reason  string
	}{
		"complete moves": {
			message: &federationv1.ReplicationResponse{CurrentIndex: 12, Epoch: 2, Complete: true, SourceTime: timestamppb.New(later)},
			want:    cursor.Position{Source: "us-east", Index: 12, Epoch: 2, Time: later, Current: arrived},
		},
		"a piece stays": {
			message: &federationv1.ReplicationResponse{CurrentIndex: 12, Epoch: 2, SourceTime: timestamppb.New(later)},
			want:    at,
		},
		"a piece of a full sync that says no index stays": {
			message: &federationv1.ReplicationResponse{Epoch: 2, FullSyncRequired: true},
			want:    at,
		},
		"a piece of a source that is behind is refused": {
			message: &federationv1.ReplicationResponse{CurrentIndex: 9, Epoch: 2, FullSyncRequired: true},
			want:    at, reason: cursor.ReasonSourceIndexBehind,
		},
		"a full sync over copies is kept in mind": {
			message: &federationv1.ReplicationResponse{CurrentIndex: 12, Epoch: 2, FullSyncRequired: true, Complete: true, SourceTime: timestamppb.New(later)},
			want:    cursor.Position{Source: "us-east", Index: 12, Epoch: 2, Time: later, Current: arrived, FullSync: arrived},
		},
		"a complete message without an index is refused": {
			message: &federationv1.ReplicationResponse{Epoch: 2, FullSyncRequired: true, Complete: true},
			want:    at, reason: cursor.ReasonSourceIndexBehind,
		},
		"heartbeat at the same index moves the time": {
			message: &federationv1.ReplicationResponse{CurrentIndex: 10, Epoch: 2, Complete: true, SourceTime: timestamppb.New(later)},
			want:    cursor.Position{Source: "us-east", Index: 10, Epoch: 2, Time: later, Current: arrived},
		},
		"newer epoch is learnt": {
			message: &federationv1.ReplicationResponse{CurrentIndex: 12, Epoch: 3, Complete: true},
			want:    cursor.Position{Source: "us-east", Index: 12, Epoch: 3, Time: then, Current: arrived},
		},
		"older epoch is refused": {
			message: &federationv1.ReplicationResponse{CurrentIndex: 12, Epoch: 1, Complete: true},
			want:    at, reason: cursor.ReasonEpochSuperseded,
		},
		"rebuilt source is refused": {
			message: &federationv1.ReplicationResponse{CurrentIndex: 9, Epoch: 2, Complete: true},
			want:    at, reason: cursor.ReasonSourceIndexBehind,
		},
		"negative index is refused": {
			message: &federationv1.ReplicationResponse{CurrentIndex: -1, Epoch: 2, Complete: true},
			want:    at, reason: cursor.ReasonSourceIndexBehind,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := at.Accept(c.message, arrived)
			require.Equal(t, c.want, got)
			require.Equal(t, c.reason, fault.ReasonOf(err))
			if c.reason != "" {
				require.Equal(t, fault.FailedPrecondition, fault.CodeOf(err))
			}
		})
	}
}

func TestPositionNeverMovesBackwards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := cursor.Position{Source: "a", Index: rapid.Uint64Range(0, 20).Draw(t, "index"), Epoch: rapid.Uint64Range(0, 5).Draw(t, "epoch")}
		for range 20 {
			next, err := at.Accept(&federationv1.ReplicationResponse{
				CurrentIndex: rapid.Int64Range(-1, 30).Draw(t, "current"),
				Epoch:        rapid.Uint64Range(0, 6).Draw(t, "source epoch"),
				Complete:     rapid.Bool().Draw(t, "complete"),
			}, here)
			require.GreaterOrEqual(t, next.Index, at.Index)
			require.GreaterOrEqual(t, next.Epoch, at.Epoch)
			if err != nil {
				require.Equal(t, at, next)
			}
			at = next
		}
	})
}

// However a batch is cut, and whether its pieces say an index or not, it ends where it would have
// ended in one message, and until then the position that is stored is the one it began at.
func TestABatchInPiecesEndsInAPosition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		begun := cursor.Position{Source: "a", Index: rapid.Uint64Range(0, 50).Draw(t, "index"), Epoch: 1, Time: then, Current: here}
		end := int64(begun.Index) + rapid.Int64Range(0, 50).Draw(t, "more")
		full := rapid.Bool().Draw(t, "full sync")
		said := rapid.SampledFrom([]int64{0, int64(begun.Index), end}).Draw(t, "index of the pieces")
		last := &federationv1.ReplicationResponse{CurrentIndex: end, Epoch: 1, FullSyncRequired: full, Complete: true, SourceTime: timestamppb.New(then)}
		want, err := begun.Accept(last, here.Add(time.Hour))
		require.NoError(t, err)
		at := begun
		for range rapid.IntRange(0, 10).Draw(t, "pieces") {
			piece := &federationv1.ReplicationResponse{CurrentIndex: said, Epoch: 1, FullSyncRequired: full, SourceTime: timestamppb.New(then.Add(time.Minute))}
			at, err = at.Accept(piece, here.Add(time.Minute))
			require.NoError(t, err)
			require.Equal(t, begun, at)
		}
		got, err := at.Accept(last, here.Add(time.Hour))
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

func TestStoredCursorSurvivesTheRoundTripAndLearnsTheEpoch(t *testing.T) {
	p := cursor.Position{Source: "a", Index: 7, Epoch: 1, Time: then, Current: here, FullSync: here.Add(-time.Hour)}
	require.Equal(t, p, cursor.FromProto("a", p.Proto(), 0))
	require.Equal(t, uint64(4), cursor.FromProto("a", p.Proto(), 4).Epoch)
	require.Equal(t, cursor.Position{Source: "a", Epoch: 2}, cursor.FromProto("a", nil, 2))
}

func TestMustStore(t *testing.T) {
	stored := cursor.Position{Index: 5, Epoch: 1}
	require.False(t, stored.MustStore(stored, time.Hour, time.Minute), "nothing new")
	moved := cursor.Position{Index: 6, Epoch: 1}
	require.False(t, moved.MustStore(stored, time.Second, time.Minute), "too early")
	require.True(t, moved.MustStore(stored, time.Minute, time.Minute))
	later := cursor.Position{Index: 5, Epoch: 1, Current: here}
	require.False(t, later.MustStore(stored, time.Second, time.Minute), "a heartbeat does not cost a commit each")
	require.True(t, later.MustStore(stored, time.Minute, time.Minute), "the copy would look older than it is")
	require.True(t, cursor.Position{Index: 5, Epoch: 2}.MustStore(stored, 0, time.Minute), "an epoch is stored at once")
}
