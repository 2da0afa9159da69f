package forward

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

func leaseOf(term, number uint64) *registryv1.ReadLease {
	return &registryv1.ReadLease{Term: term, Number: number, Lasts: durationpb.New(160 * time.Millisecond)}
}

func TestAServerWithAReadLeaseAsksOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{leader: "s2", confirmed: 7, published: 7, lease: leaseOf(5, 1)}
		r := newRouter(t, w)
		read := func(mode registryv1.ReadMode) []string {
			w.calls = nil
			require.NoError(t, w.do(t.Context(), t, r, "/get", &registryv1.GetRequest{ReadMode: mode}))
			return w.calls
		}
		const leased = registryv1.ReadMode_READ_MODE_DEFAULT
		require.Equal(t, []string{"ask s2", "here"}, read(leased))
		require.Equal(t, []string{"here"}, read(leased))
		require.Equal(t, []string{"ask s2", "here"}, read(registryv1.ReadMode_READ_MODE_LINEARIZABLE), "a lease is no quorum")
		w.published = 6
		require.Equal(t, []string{"s2"}, read(leased), "what the lease is about is not here")
		w.published = 8
		time.Sleep(150 * time.Millisecond) // It ends a sixteenth early.
		require.Equal(t, []string{"ask s2", "here"}, read(leased))
		r.RecallReadLease(5, 1)
		require.Equal(t, []string{"ask s2", "here"}, read(leased))
		require.Equal(t, []string{"ask s2", "here"}, read(leased), "the same lease came again, late")
		w.lease = leaseOf(5, 2)
		require.Equal(t, []string{"ask s2", "here"}, read(leased))
		require.Equal(t, []string{"here"}, read(leased))
	})
}
