package forward

import (
	"testing"

	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

func TestQuestionsToTheLeaderShareAStream(t *testing.T) {
	w := &world{leader: "s2"}
	r := newRouter(t, w)
	for range 3 {
		require.NoError(t, r.Propose(t.Context(), &registryv1.Command{})[0].Err)
	}
	require.Equal(t, 1, w.streams)
	require.Equal(t, []string{"s2", "s2", "s2"}, w.calls)
}

func TestAStreamThatBrokeWhileNobodyUsedItIsReplaced(t *testing.T) {
	w := &world{leader: "s2"}
	r := newRouter(t, w)
	require.NoError(t, r.Propose(t.Context(), &registryv1.Command{})[0].Err)
	w.broken = true
	require.NoError(t, r.Propose(t.Context(), &registryv1.Command{})[0].Err)
	require.Equal(t, 2, w.streams)
}

func TestStreamsToAnotherThanTheLeaderAreGivenUp(t *testing.T) {
	w := &world{leader: "s2"}
	r := newRouter(t, w)
	require.NoError(t, r.Propose(t.Context(), &registryv1.Command{})[0].Err)
	open := r.lines.idle["s2"][0]
	r.flights.strand("s3")
	r.lines.forget()
	require.Error(t, open.ctx.Err())
	require.Empty(t, r.lines.idle)
	require.NoError(t, r.Propose(t.Context(), &registryv1.Command{})[0].Err)
	require.Equal(t, 2, w.streams)
}

func TestALeaderOfAnOlderVersionIsCalled(t *testing.T) {
	w := &world{leader: "s2", old: true}
	r := newRouter(t, w)
	for range 2 {
		require.NoError(t, r.Propose(t.Context(), &registryv1.Command{})[0].Err)
	}
	require.Equal(t, 1, w.streams, "it is not asked for streams again")
	require.Equal(t, []string{"s2", "s2"}, w.calls)
	w.old = false
	r.lines.forget() // Somebody else led for a while: it may have been upgraded.
	require.NoError(t, r.Propose(t.Context(), &registryv1.Command{})[0].Err)
	require.Equal(t, 2, w.streams)
}
