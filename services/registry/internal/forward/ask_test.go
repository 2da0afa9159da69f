package forward

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

func TestAQuestionThatIsNotAnsweredEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{leader: "s2", block: true}
		r := newRouter(t, w)
		begin := time.Now()
		require.Equal(t, fault.DeadlineExceeded, fault.CodeOf(r.Propose(t.Context(), &registryv1.Command{})[0].Err))
		require.Equal(t, tripTimeout, time.Since(begin))
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
