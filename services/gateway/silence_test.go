package gateway_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/pkg/konsultest"
	"konsul.dev/pkg/rpc"
	"konsul.dev/services/gateway"
)

func TestAnErrorNamesTheServiceThatDidNotAnswerAndNotTheGateway(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	d := newDatacenter(t, ca, east)
	r := start(t, ca, d, func(cfg *gateway.Config) { cfg.Endpoints.WANGossip = []string{"127.0.0.1:1"} })

	got := r.rest(t, true).do(t, http.MethodGet, "/api/v1/datacenters", nil)
	require.Equal(t, http.StatusServiceUnavailable, got.status)
	problem := got.problem(t)
	require.Equal(t, "BACKEND_UNREACHABLE", problem["reason"])
	require.Equal(t, "the gateway of datacenter us-east serves, but the wan-gossip behind it did not answer", problem["message"])
	require.Contains(t, problem["remedy"], "wan-gossip runs")

	_, err := wangossipv1.NewDatacenterServiceClient(r.dialEdge(t)).ListDatacenters(withToken(t), &wangossipv1.ListDatacentersRequest{})
	f, ok := fault.As(rpc.FromStatus(err))
	require.True(t, ok)
	require.Equal(t, "BACKEND_UNREACHABLE", f.Reason())
	require.Equal(t, "wan-gossip", f.Meta()["service"])
	require.NotEmpty(t, f.Remedy())
}

func TestAPausedRegistryServerHoldsUpNoWriteForLong(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	d, other := newDatacenter(t, ca, east), newDatacenter(t, ca, east)
	paused := konsultest.NewPausable(t, other.registry)
	r := start(t, ca, d, func(cfg *gateway.Config) { cfg.Endpoints.Registry = []string{paused.Addr(), d.registry} })
	client := r.rest(t, true)
	write := func() reply { return client.do(t, http.MethodPut, "/api/v1/kv/k", strings.NewReader("v")) }
	eventually(t, "both are connected", func() bool {
		before := paused.Passed()
		for range 4 {
			require.Equal(t, http.StatusOK, write().status)
		}
		return paused.Passed() > before
	})
	paused.Pause()
	var longest time.Duration
	for range 12 {
		began := time.Now()
		got := write()
		longest = max(longest, time.Since(began))
		require.Equal(t, http.StatusOK, got.status, "written elsewhere with the same request id: %s", got.body)
	}
	t.Logf("the longest write took %s", longest)
	require.Less(t, longest, patience)

	// Of a client's own stream nothing can be repeated here: whether the write was done is said
	// honestly.
	paused.Resume()
	conn := r.dialEdge(t)
	set := func() error {
		_, err := registryv1.NewKVServiceClient(conn).Set(withToken(t), &registryv1.SetRequest{Key: "k", Value: []byte("v")})
		return rpc.FromStatus(err)
	}
	eventually(t, "it is heard again", func() bool {
		before := paused.Passed()
		for range 4 {
			require.NoError(t, set())
		}
		return paused.Passed() > before
	})
	paused.Pause()
	var failed error
	eventually(t, "the call that was on its way ends", func() bool {
		if err := set(); err != nil {
			failed = err
		}
		return failed != nil
	})
	require.Equal(t, fault.ReasonOutcomeUnknown, fault.ReasonOf(failed), "%v", failed)
	f, _ := fault.As(failed)
	require.Contains(t, f.Message(), "the registry of datacenter us-east")
	require.Contains(t, f.Remedy(), "with the request id that it had", "the gateway does not read what gRPC clients send")
}

func TestReadyMeansThatWritesAreServed(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	d := newDatacenter(t, ca, east)
	r := start(t, ca, d)
	client := r.rest(t, true)
	get := func(path string) reply { return client.do(t, http.MethodGet, path, nil, "Authorization", "") }
	eventually(t, "ready", func() bool { return get("/readyz").status == http.StatusOK })

	d.health.SetServingStatus(rpc.HealthWrites, healthv1.HealthCheckResponse_NOT_SERVING)
	eventually(t, "no leader for some seconds", func() bool { return get("/readyz").status == http.StatusServiceUnavailable })
	require.JSONEq(t, `{"ready":false,"parts":{"process":"ok","registry":"NO_LEADER"}}`, get("/readyz").body)
	require.Equal(t, http.StatusOK, get("/readyz?reads").status, "reads are served all the same")
	require.Equal(t, http.StatusOK, get("/healthz").status, "and nobody should restart it")

	d.health.SetServingStatus(rpc.HealthWrites, healthv1.HealthCheckResponse_SERVING)
	eventually(t, "a leader", func() bool { return get("/readyz").status == http.StatusOK })
}
