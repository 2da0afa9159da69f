package resolve_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/services/failover-router/internal/catalogue"
	"konsul.dev/services/failover-router/internal/resolve"
	"konsul.dev/services/failover-router/internal/verdict"
)

// world is a federation of three: own is us-east.
type world struct {
	datacenters []verdict.Datacenter
	answers     map[string]catalogue.Answer
	policy      *registryv1.FailoverPolicy
	hang        map[string]bool

	mu       sync.Mutex
	asked    []string
	policies int
	deadline map[string]time.Duration
}

func (w *world) Instances(ctx context.Context, dc, _ string, _ time.Duration) catalogue.Answer {
	w.mu.Lock()
	w.asked = append(w.asked, dc)
	if deadline, ok := ctx.Deadline(); ok {
		w.deadline[dc] = time.Until(deadline)
	}
	w.mu.Unlock()
	if w.hang[dc] {
		<-ctx.Done()
		return catalogue.Answer{Err: ctx.Err()}
	}
	return w.answers[dc]
}

func (w *world) Policy(context.Context, string, time.Duration) *registryv1.FailoverPolicy {
	w.policies++
	return w.policy
}

func (w *world) Current() ([]verdict.Datacenter, <-chan struct{}) { return w.datacenters, nil }

func has(ids ...string) catalogue.Answer {
	var a catalogue.Answer
	for _, id := range ids {
		status := registryv1.HealthStatus_HEALTH_STATUS_PASSING
		if strings.HasPrefix(id, "sick") {
			status = registryv1.HealthStatus_HEALTH_STATUS_CRITICAL
		}
		a.Instances = append(a.Instances, &registryv1.ServiceInstance{Service: &registryv1.Service{Id: id}, Status: status})
	}
	return a
}

func stale(ids ...string) catalogue.Answer {
	a := has(ids...)
	a.Err = errGone()
	return a
}

func errGone() error { return fault.New(fault.Unavailable, "", "gone") }

func newWorld() *world {
	return &world{
		datacenters: []verdict.Datacenter{
			{Name: "eu-central", RoundTrip: 90, Measured: true}, {Name: "us-east", Measured: true}, {Name: "us-west", RoundTrip: 60, Measured: true},
		},
		answers: map[string]catalogue.Answer{"us-east": has("e1", "e2"), "us-west": has("w1", "w2"), "eu-central": has("c1")},
		hang:    map[string]bool{}, deadline: map[string]time.Duration{},
	}
}

func (w *world) resolver(t *testing.T) (*resolve.Resolver, *prometheus.Registry) {
	t.Helper()
	registry := prometheus.NewRegistry()
	metrics, err := resolve.NewMetrics(registry)
	require.NoError(t, err)
	return resolve.New(resolve.Params{Datacenter: "us-east", Catalogue: w, Topology: w, Timeout: 100 * time.Millisecond, Metrics: metrics}), registry
}

func ids(result resolve.Result) []string {
	var out []string
	for _, e := range result.Endpoints {
		out = append(out, e.Instance.GetService().GetId()+":"+string(e.Reason))
	}
	return out
}

func TestFirstWithPassingInstancesAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		spoil      func(*world)
		req        verdict.Request
		want       []string
		asked      []string
		failedOver bool
	}{
		"local": {want: []string{"e1:local", "e2:local"}, asked: []string{"us-east"}},
		"no instance at home": {
			spoil: func(w *world) { w.answers["us-east"] = has("sick") },
			want:  []string{"w1:nearest", "w2:nearest"}, asked: []string{"us-east", "us-west"}, failedOver: true,
		},
		"policy caps": {
			spoil: func(w *world) {
				w.answers["us-east"] = has()
				w.policy = &registryv1.FailoverPolicy{Failover: []*registryv1.FailoverTarget{{Datacenter: "us-west", Targets: 1}}}
			},
			want: []string{"w1:policy"}, asked: []string{"us-east", "us-west"}, failedOver: true,
		},
		"the caller's list": {
			spoil: func(w *world) {
				w.answers["us-east"], w.answers["eu-central"] = has(), catalogue.Answer{Err: errGone()}
			},
			req:  verdict.Request{Failover: []string{"eu-central", "us-west"}},
			want: []string{"w1:failover", "w2:failover"}, asked: []string{"us-east", "eu-central", "us-west"}, failedOver: true,
		},
		"a blip of a living datacenter": {
			spoil: func(w *world) { w.answers["us-west"] = stale("w1") },
			req:   verdict.Request{Datacenter: "us-west"}, want: []string{"w1:datacenter"}, asked: []string{"us-west"},
		},
		"a datacenter that two signals call dead": {
			spoil: func(w *world) { w.answers["us-west"], w.datacenters[2].Down = stale("w1"), true },
			req:   verdict.Request{Datacenter: "us-west", Failover: []string{"eu-central"}},
			want:  []string{"c1:failover"}, asked: []string{"us-west", "eu-central"}, failedOver: true,
		},
		"gossip alone does not kill": {
			spoil: func(w *world) { w.datacenters[2].Down = true },
			req:   verdict.Request{Datacenter: "us-west"}, want: []string{"w1:datacenter", "w2:datacenter"}, asked: []string{"us-west"},
		},
		"a dead one's last word is worth nothing": {
			spoil: func(w *world) {
				w.answers["us-west"], w.datacenters[2].Down = stale("w1"), true
				w.answers["us-east"], w.answers["eu-central"] = has(), has("sick")
			},
			req: verdict.Request{Datacenter: "us-west"}, want: nil, asked: []string{"us-west", "us-east", "eu-central"},
		},
		"the sick, if asked for and nobody else is there": {
			spoil: func(w *world) {
				w.answers = map[string]catalogue.Answer{"us-east": has("sick-e"), "us-west": has("sick-w")}
			},
			req:  verdict.Request{IncludeUnhealthy: true},
			want: []string{"sick-e:local"}, asked: []string{"us-east", "us-west", "eu-central"},
		},
		"nobody": {
			spoil: func(w *world) { w.answers = map[string]catalogue.Answer{} },
			asked: []string{"us-east", "us-west", "eu-central"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			if c.spoil != nil {
				c.spoil(w)
			}
			resolver, _ := w.resolver(t)
			c.req.Service = "api"
			result, err := resolver.Resolve(t.Context(), c.req, resolve.Options{})
			require.NoError(t, err)
			require.Equal(t, c.want, ids(result))
			require.Equal(t, c.asked, w.asked)
			require.Equal(t, c.failedOver, result.FailedOver)
			require.Len(t, result.Outcomes, len(c.asked))
		})
	}
}

func TestNoPolicyIsAskedForWhileHomeAnswers(t *testing.T) {
	w := newWorld()
	resolver, _ := w.resolver(t)
	_, err := resolver.Resolve(t.Context(), verdict.Request{Service: "api"}, resolve.Options{})
	require.NoError(t, err)
	require.Zero(t, w.policies)
}

func TestAllDatacentersAnswerTogether(t *testing.T) {
	w := newWorld()
	w.hang["us-west"] = true
	w.answers["eu-central"] = stale("c1")
	resolver, registry := w.resolver(t)
	start := time.Now()
	result, err := resolver.Resolve(t.Context(), verdict.Request{Service: "api", All: true, SortByLatency: true}, resolve.Options{})
	require.NoError(t, err)
	require.Less(t, time.Since(start), 2*time.Second, "one that hangs costs its timeout")
	require.Equal(t, []string{"e1:local", "e2:local", "c1:datacenter"}, ids(result))
	require.False(t, result.FailedOver)
	require.Equal(t, "us-west", result.Outcomes[1].Datacenter)
	require.Error(t, result.Outcomes[1].Err)
	require.Equal(t, "cannot be asked", resolve.Describe(errors.New("inner detail")))
	require.Equal(t, "gone", resolve.Describe(result.Outcomes[2].Err))
	require.Equal(t, 1, result.Outcomes[2].Endpoints)
	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP konsul_failover_resolves_total Resolutions of a service to endpoints, by outcome: first_choice, failed_over, all_datacenters or none.
# TYPE konsul_failover_resolves_total counter
konsul_failover_resolves_total{outcome="all_datacenters"} 1
`), "konsul_failover_resolves_total"))
}

func TestALostDatacenterGetsLessTime(t *testing.T) {
	w := newWorld()
	w.datacenters[2].Down = true
	w.hang["us-west"] = true
	resolver, registry := w.resolver(t)
	result, err := resolver.Resolve(t.Context(), verdict.Request{Service: "api", Datacenter: "us-west"}, resolve.Options{})
	require.NoError(t, err)
	require.True(t, result.FailedOver)
	require.Less(t, w.deadline["us-west"], 26*time.Millisecond)
	require.Greater(t, w.deadline["us-east"], 26*time.Millisecond)
	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP konsul_failover_failovers_total Resolutions that another datacenter than the first choice answered.
# TYPE konsul_failover_failovers_total counter
konsul_failover_failovers_total{from="us-west",to="us-east"} 1
`), "konsul_failover_failovers_total"))
}

func TestACallerWhoLeavesGetsAnError(t *testing.T) {
	w := newWorld()
	resolver, _ := w.resolver(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := resolver.Resolve(ctx, verdict.Request{Service: "api"}, resolve.Options{})
	require.ErrorIs(t, err, context.Canceled)
}
