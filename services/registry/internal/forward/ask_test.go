package forward

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
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

func TestAQuestionThatIsNotAnsweredEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{leader: "s2", block: true}
		r := newRouter(t, w)
		begin := time.Now()
		require.Equal(t, fault.DeadlineExceeded, fault.CodeOf(r.Propose(t.Context(), &registryv1.Command{})[0].Err))
		require.Equal(t, tripTimeout, time.Since(begin))
		require.Empty(t, r.lines.idle["s2"])
		require.Empty(t, r.flights.byPeer["s2"])
	})
}

func TestAQuestionIsCutLooseWhenAnotherServerLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{leader: "s2", block: true}
		r := newRouter(t, w)
		done := make(chan error)
		go func() { done <- r.Propose(t.Context(), &registryv1.Command{})[0].Err }()
		synctest.Wait()
		w.leader = "s3"
		r.flights.strand("s3")
		require.NoError(t, <-done)
		require.Equal(t, []string{"s2", "s3"}, w.calls)
	})
}
