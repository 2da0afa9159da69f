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

var then = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestAccept(t *testing.T) {
	at := cursor.Position{Source: "us-east", Index: 10, Epoch: 2, Time: then}
	later := then.Add(time.Second)
	for name, c := range map[string]struct {
		message *federationv1.ReplicationResponse
		want    cursor.Position
		reason  string
	}{
		"complete moves": {
			message: &federationv1.ReplicationResponse{CurrentIndex: 12, Epoch: 2, Complete: true, SourceTime: timestamppb.New(later)},
			want:    cursor.Position{Source: "us-east", Index: 12, Epoch: 2, Time: later},
		},
		"a piece stays": {
			message: &federationv1.ReplicationResponse{CurrentIndex: 12, Epoch: 2, SourceTime: timestamppb.New(later)},
			want:    at,
		},
		"heartbeat at the same index moves the time": {
			message: &federationv1.ReplicationResponse{CurrentIndex: 10, Epoch: 2, Complete: true, SourceTime: timestamppb.New(later)},
			want:    cursor.Position{Source: "us-east", Index: 10, Epoch: 2, Time: later},
		},
		"newer epoch is learnt": {
			message: &federationv1.ReplicationResponse{CurrentIndex: 12, Epoch: 3, Complete: true},
			want:    cursor.Position{Source: "us-east", Index: 12, Epoch: 3, Time: then},
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
			got, err := at.Accept(c.message)
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
			})
			require.GreaterOrEqual(t, next.Index, at.Index)
			require.GreaterOrEqual(t, next.Epoch, at.Epoch)
			if err != nil {
				require.Equal(t, at, next)
			}
			at = next
		}
	})
}

func TestStoredCursorSurvivesTheRoundTripAndLearnsTheEpoch(t *testing.T) {
	p := cursor.Position{Source: "a", Index: 7, Epoch: 1, Time: then}
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
	require.True(t, cursor.Position{Index: 5, Epoch: 2}.MustStore(stored, 0, time.Minute), "an epoch is stored at once")
}
