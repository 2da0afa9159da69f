package failoverrouter_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	failoverrouterv1 "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	failoverrouter "konsul.dev/services/failover-router"
)

func ids(resp *failoverrouterv1.ResolveResponse) []string {
	var out []string
	for _, e := range resp.GetEndpoints() {
		out = append(out, e.GetDatacenter()+"/"+e.GetInstance().GetService().GetId()+":"+e.GetReason())
	}
	return out
}

func TestResolveOverDatacenters(t *testing.T) {
	w := newWorld(t)
	w.set(east, instance("e1", "10.0.0.1:80"))
	w.set(west, instance("w1", "10.0.1.1:80"), instance("w2", "10.0.1.2:80"))
	w.set(eu, instance("c1", "10.0.2.1:80"))
	r := w.start(t)
	resolve := func(req *failoverrouterv1.ResolveRequest) *failoverrouterv1.ResolveResponse {
		t.Helper()
		req.Service = "api"
		resp, err := r.client.Resolve(t.Context(), req)
		require.NoError(t, err)
		return resp
	}
	require.Equal(t, []string{"us-east/e1:local"}, ids(resolve(&failoverrouterv1.ResolveRequest{})))

	all := resolve(&failoverrouterv1.ResolveRequest{AllDatacenters: true, PreferLocal: true, SortByLatency: true})
	require.Equal(t, []string{"us-east/e1:local", "us-west/w1:datacenter", "us-west/w2:datacenter", "eu-central/c1:datacenter"}, ids(all))
	require.Zero(t, all.GetEndpoints()[0].GetRoundTrip().AsDuration())
	require.NotNil(t, all.GetEndpoints()[0].GetRoundTrip())
	require.Equal(t, 80*time.Millisecond, all.GetEndpoints()[3].GetRoundTrip().AsDuration())

	w.set(east)
	require.Equal(t, []string{"us-west/w1:nearest", "us-west/w2:nearest"}, ids(resolve(&failoverrouterv1.ResolveRequest{})))
	w.mu.Lock()
	w.policies["api"] = &registryv1.FailoverPolicy{Failover: []*registryv1.FailoverTarget{{Datacenter: west, Targets: 1}}}
	w.mu.Unlock()
	capped := resolve(&failoverrouterv1.ResolveRequest{})
	require.Equal(t, []string{"us-west/w1:policy"}, ids(capped))
	require.True(t, capped.GetFailedOver())

	w.lose(west)
	require.Eventually(t, func() bool {
		lost := resolve(&failoverrouterv1.ResolveRequest{Datacenter: west, Failover: []string{west, eu}})
		return len(lost.GetEndpoints()) == 1 && lost.GetEndpoints()[0].GetDatacenter() == eu && lost.GetFailedOver() &&
			lost.GetDatacenters()[0].GetError() != ""
	}, patience, 10*time.Millisecond)
	all = resolve(&failoverrouterv1.ResolveRequest{AllDatacenters: true})
	require.Len(t, all.GetDatacenters(), 3)
	require.NotEmpty(t, all.GetDatacenters()[2].GetError(), "one that cannot be asked does not fail the whole")
	problems, err := testutil.GatherAndLint(r.telemetry.Metrics)
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestMalformedRequestsNameTheField(t *testing.T) {
	r := newWorld(t).start(t)
	for field, req := range map[string]*failoverrouterv1.ResolveRequest{
		"service":     {},
		"datacenter":  {Service: "api", Datacenter: "US East"},
		"failover[1]": {Service: "api", Failover: []string{west, ""}},
	} {
		_, err := r.client.Resolve(t.Context(), req)
		require.Equal(t, fault.InvalidArgument, fault.CodeOf(err), field)
		f, _ := fault.As(err)
		require.Equal(t, field, f.Field())
	}
}

func TestOnlyAgentAndGatewayMayAsk(t *testing.T) {
	w := newWorld(t)
	r := w.start(t)
	for peer, want := range map[[2]string]bool{
		{east, "agent"}: true, {east, "gateway"}: true, {west, "agent"}: false, {west, "gateway"}: false, {east, "replicator"}: false,
	} {
		client := failoverrouterv1.NewRouterServiceClient(w.dial(t, r.Addr(), peer[0], peer[1]))
		_, err := client.Resolve(t.Context(), &failoverrouterv1.ResolveRequest{Service: "api"})
		if want {
			require.NoError(t, err, peer)
		} else {
			require.Equal(t, fault.PermissionDenied, fault.CodeOf(err), peer)
		}
	}
}

func TestAWatchSpeaksWhenSomethingChanges(t *testing.T) {
	w := newWorld(t)
	w.set(west, instance("w1", "10.0.1.1:80"))
	r := w.start(t)
	stream, err := r.client.WatchResolve(t.Context(), &failoverrouterv1.WatchResolveRequest{Request: &failoverrouterv1.ResolveRequest{
		Service: "api", Datacenter: west,
	}})
	require.NoError(t, err)
	first, err := stream.Recv()
	require.NoError(t, err)
	require.Equal(t, []string{"us-west/w1:datacenter"}, ids(first.GetResponse()))
	w.set(eu, instance("c1", "10.0.2.1:80"))
	w.lose(west)
	for {
		next, err := stream.Recv()
		require.NoError(t, err)
		if got := ids(next.GetResponse()); len(got) == 1 && got[0] == "eu-central/c1:nearest" {
			break
		}
	}
	r.stop()
	for err == nil {
		_, err = stream.Recv()
	}
	require.Equal(t, fault.Unavailable, fault.CodeOf(err), "a stop does not wait for watchers")
}

func TestARouterWithoutItsRegistryRepeatsItself(t *testing.T) {
	w := newWorld(t)
	w.set(east, instance("e1", "10.0.0.1:80"))
	r := w.start(t)
	require.NoError(t, r.Ready(t.Context()))
	w.mu.Lock()
	w.lost[east] = true
	w.mu.Unlock()
	resp, err := r.client.Resolve(t.Context(), &failoverrouterv1.ResolveRequest{Service: "api"})
	require.NoError(t, err)
	require.Equal(t, []string{"us-east/e1:local"}, ids(resp))
	require.NotEmpty(t, resp.GetDatacenters()[0].GetError())
	require.False(t, resp.GetFailedOver())

	alone := w.start(t, func(c *failoverrouter.Config) { c.FailoverRouter.Lease = 0 })
	require.Eventually(t, func() bool {
		resp, err := alone.client.Resolve(t.Context(), &failoverrouterv1.ResolveRequest{Service: "api"})
		return err == nil && len(resp.GetEndpoints()) == 0
	}, patience, 10*time.Millisecond, "without a lease nothing is repeated")
}

func TestWithoutGossipTheLastKnownDatacentersAreUsed(t *testing.T) {
	w := newWorld(t)
	w.set(west, instance("w1", "10.0.1.1:80"))
	r := w.start(t)
	w.stopGossip()
	resp, err := r.client.Resolve(t.Context(), &failoverrouterv1.ResolveRequest{Service: "api"})
	require.NoError(t, err)
	require.Equal(t, []string{"us-west/w1:nearest"}, ids(resp))
	require.NoError(t, r.Ready(t.Context()))
}
