package changes_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/changes"
	"konsul.dev/services/registry/internal/record/recordtest"
	"konsul.dev/services/registry/internal/watch"
)

func rows(n, bytes int) []*registryv1.Record {
	out := make([]*registryv1.Record, n)
	for i := range out {
		out[i] = &registryv1.Record{Value: make([]byte, bytes)}
	}
	return out
}

func TestRowsAreSentInPiecesOfWhichOneIsTheLast(t *testing.T) {
	for name, c := range map[string]struct {
		rows []*registryv1.Record
		want []int
	}{
		"none":            {nil, []int{0}},
		"few":             {rows(3, 10), []int{3}},
		"many":            {rows(2500, 0), []int{1000, 1000, 500}},
		"large":           {rows(3, 600<<10), []int{1, 1, 1}},
		"larger than one": {rows(1, 2<<20), []int{1}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []int
			ended := false
			require.NoError(t, changes.InPieces(c.rows, func(rows []*registryv1.Record, last bool) error {
				require.False(t, ended)
				got, ended = append(got, len(rows)), last
				return nil
			}))
			require.True(t, ended)
			require.Equal(t, c.want, got)
			require.Equal(t, len(c.want) == 1, changes.Fits(c.rows))
		})
	}
	broken := errors.New("broken")
	require.ErrorIs(t, changes.InPieces(rows(2500, 0), func([]*registryv1.Record, bool) error { return broken }), broken)
}

func TestReadTellsTheStateOrWhatChanged(t *testing.T) {
	const kv = registryv1.Table_TABLE_KV
	s := recordtest.New()
	for i, r := range []*registryv1.Record{
		{Key: "b"}, {Key: "a"}, {Key: "gone", Deleted: true}, {Key: "other"},
	} {
		r.Table, r.ModifyIndex = kv, uint64(i+1)
		require.NoError(t, s.Put(r))
	}
	source := changes.Source{Store: s.At(9)}
	read := func(since uint64) (keys []string) {
		got, index, err := source.Read([]watch.Filter{{Table: kv, Prefix: "a"}, {Table: kv, Prefix: "b", Exact: true}, {Table: kv, Prefix: "gone", Exact: true}}, since)
		require.NoError(t, err)
		require.EqualValues(t, 9, index)
		for _, r := range got {
			keys = append(keys, r.GetKey())
		}
		return keys
	}
	require.Equal(t, []string{"a", "b"}, read(0), "filter by filter, without tombstones")
	require.Equal(t, []string{"a", "gone"}, read(1))
	require.Equal(t, []string{"gone"}, read(2))
	require.Empty(t, read(3))
}

func TestHeartbeat(t *testing.T) {
	usual, err := changes.Heartbeat(nil, time.Second)
	require.NoError(t, err)
	require.Equal(t, time.Second, usual)
	asked, err := changes.Heartbeat(durationpb.New(2*time.Second), time.Second)
	require.NoError(t, err)
	require.Equal(t, 2*time.Second, asked)
	for _, d := range []time.Duration{-time.Second, time.Millisecond, time.Hour} {
		_, err := changes.Heartbeat(durationpb.New(d), time.Second)
		require.Equal(t, fault.ReasonInvalidArgument, fault.ReasonOf(err))
	}
}
