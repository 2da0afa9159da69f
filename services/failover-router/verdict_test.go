package failoverrouter_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	failoverrouterv1 "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/fault"
	failoverrouter "konsul.dev/services/failover-router"
)

// suspects makes gossip lose a datacenter that answers questions all the same.
func (w *world) suspects(dc string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states[dc] = wangossipv1.DatacenterState_DATACENTER_STATE_FAILED
	close(w.changed)
	w.changed = make(chan struct{})
}

// hangs counts requests and holds them until they end or release is closed.
func hangs(arrived *atomic.Int32, release <-chan struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		arrived.Add(1)
		select {
		case <-r.Context().Done():
		case <-release:
			says("late")(w, r)
		}
	}
}

func TestTheVerdictEndsWhatWaitsForTheDatacenter(t *testing.T) {
	const afterAll = time.Minute // what a request would wait without the verdict
	for name, tc := range map[string]struct {
		method, body string
		status       int
		reason       string
	}{
		"what may be repeated moves on": {method: http.MethodGet, status: http.StatusOK},
		"what may not is told":          {method: http.MethodPost, body: "x", status: http.StatusBadGateway, reason: fault.ReasonOutcomeUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			var arrived atomic.Int32
			release := make(chan struct{})
			w.set(west, instance("w1", w.backend(t, west, hangs(&arrived, release))))
			t.Cleanup(func() { close(release) }) // before the backend's, which waits for its handlers
			w.set(eu, instance("eu1", w.backend(t, eu, says("eu1"))))
			r := w.start(t, func(cfg *failoverrouter.Config) { cfg.FailoverRouter.ProxyResponseTimeout = afterAll })
			go func() {
				for arrived.Load() == 0 && t.Context().Err() == nil {
					<-time.After(time.Millisecond)
				}
				w.lose(west)
			}()
			got := r.send(t, tc.method, "api.service.us-west.konsul", tc.body, nil)
			require.Equal(t, tc.status, got.status, got.body)
			require.Equal(t, tc.reason, got.problem.Reason)
			if tc.reason != "" {
				require.Contains(t, got.problem.Tries[0].Error, "given up")
			}
		})
	}
}

func TestADatacenterThatOnlyGossipHasLostKeepsItsRequests(t *testing.T) {
	w := newWorld(t)
	var arrived atomic.Int32
	release := make(chan struct{})
	w.set(west, instance("w1", w.backend(t, west, hangs(&arrived, release))))
	r := w.start(t)
	go func() {
		for arrived.Load() == 0 && t.Context().Err() == nil {
			<-time.After(time.Millisecond)
		}
		w.suspects(west)
		<-time.After(1500 * time.Millisecond) // longer than the proxy takes to ask for a second opinion
		close(release)
	}()
	got := r.send(t, http.MethodPost, "api.service.us-west.konsul", "x", nil)
	require.Equal(t, http.StatusOK, got.status, got.body)
}

func TestEndpointsOfALostDatacenterGoWithTheVerdict(t *testing.T) {
	w := newWorld(t)
	w.set(west, instance("w1", "127.0.0.1:9"))
	r := w.start(t, func(cfg *failoverrouter.Config) { cfg.FailoverRouter.Lease = time.Hour })
	ask := func() (endpoints int, problem string) {
		resp, err := r.client.Resolve(t.Context(), &failoverrouterv1.ResolveRequest{Service: "api", AllDatacenters: true})
		require.NoError(t, err)
		for _, dc := range resp.GetDatacenters() {
			if dc.GetDatacenter() == west {
				problem = dc.GetError()
			}
		}
		return len(resp.GetEndpoints()), problem
	}
	endpoints, _ := ask()
	require.Equal(t, 1, endpoints)
	w.lose(west)
	require.Eventually(t, func() bool {
		endpoints, problem := ask()
		return endpoints == 0 && problem != ""
	}, patience, 10*time.Millisecond)
}
