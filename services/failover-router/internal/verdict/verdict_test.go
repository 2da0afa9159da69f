package verdict_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/services/failover-router/internal/verdict"
)

const (
	passing  = registryv1.HealthStatus_HEALTH_STATUS_PASSING
	critical = registryv1.HealthStatus_HEALTH_STATUS_CRITICAL
)

func instance(id string, status registryv1.HealthStatus, tags ...string) *registryv1.ServiceInstance {
	return &registryv1.ServiceInstance{Service: &registryv1.Service{Id: id, Tags: tags}, Status: status}
}

func known() []verdict.Datacenter {
	return []verdict.Datacenter{
		{Name: "ap-south"},
		{Name: "eu-central", RoundTrip: 90 * time.Millisecond, Measured: true},
		{Name: "us-east", RoundTrip: 5 * time.Hour, Measured: true}, // the own one's word about itself is not needed
		{Name: "us-west", RoundTrip: 60 * time.Millisecond, Measured: true},
	}
}

func names(steps []verdict.Step) []string {
	var out []string
	for _, s := range steps {
		out = append(out, s.Datacenter.Name+":"+string(s.Reason))
	}
	return out
}

func TestPlan(t *testing.T) {
	policy := &registryv1.FailoverPolicy{Failover: []*registryv1.FailoverTarget{
		{Datacenter: "eu-central", Targets: 2}, {Datacenter: "us-west"},
	}}
	lost := known()
	lost[3].Down = true
	for name, c := range map[string]struct {
		req    verdict.Request
		known  []verdict.Datacenter
		policy *registryv1.FailoverPolicy
		want   []string
	}{
		"own, then nearest": {
			known: known(), want: []string{"us-east:local", "us-west:nearest", "eu-central:nearest", "ap-south:nearest"},
		},
		"local is the own one": {
			req: verdict.Request{Datacenter: "local"}, want: []string{"us-east:local"},
		},
		"named, then nearest with the own one first": {
			req: verdict.Request{Datacenter: "us-west"}, known: known(),
			want: []string{"us-west:datacenter", "us-east:nearest", "eu-central:nearest", "ap-south:nearest"},
		},
		"policy": {
			known: known(), policy: policy, want: []string{"us-east:local", "eu-central:policy", "us-west:policy"},
		},
		"the caller's list overrides the policy": {
			req: verdict.Request{Failover: []string{"us-west", "us-west", "us-east", "eu-central"}}, known: known(), policy: policy,
			want: []string{"us-east:local", "us-west:failover", "eu-central:failover"},
		},
		"a lost substitute comes last": {
			req: verdict.Request{Failover: []string{"us-west", "eu-central"}}, known: lost,
			want: []string{"us-east:local", "eu-central:failover", "us-west:failover"},
		},
		"a lost first choice is still first": {
			req: verdict.Request{Datacenter: "us-west", Failover: []string{"us-west", "local"}}, known: lost,
			want: []string{"us-west:datacenter", "us-east:failover"},
		},
		"a datacenter gossip never heard of is asked": {
			req: verdict.Request{Datacenter: "atlantis"}, want: []string{"atlantis:datacenter", "us-east:nearest"},
		},
		"all, by name": {
			req: verdict.Request{All: true}, known: known(),
			want: []string{"ap-south:datacenter", "eu-central:datacenter", "us-east:local", "us-west:datacenter"},
		},
		"all, own first": {
			req: verdict.Request{All: true, PreferLocal: true}, known: known(),
			want: []string{"us-east:local", "ap-south:datacenter", "eu-central:datacenter", "us-west:datacenter"},
		},
		"all, nearest first": {
			req: verdict.Request{All: true, SortByLatency: true}, known: known(),
			want: []string{"us-east:local", "us-west:datacenter", "eu-central:datacenter", "ap-south:datacenter"},
		},
		"all, without gossip": {
			req: verdict.Request{All: true}, want: []string{"us-east:local"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, names(verdict.Plan(c.req, verdict.World{Own: "us-east", Known: c.known, Policy: c.policy})))
		})
	}
}

func TestTake(t *testing.T) {
	instances := []*registryv1.ServiceInstance{
		instance("c", passing, "v1", "eu"), instance("a", critical, "v1"), instance("b", passing, "v1"), instance("d", passing),
	}
	for name, c := range map[string]struct {
		req    verdict.Request
		step   verdict.Step
		usable func(*registryv1.ServiceInstance) bool
		want   []string
	}{
		"passing, by id":       {want: []string{"b", "c", "d"}},
		"all tags":             {req: verdict.Request{Tags: []string{"eu", "v1"}}, want: []string{"c"}},
		"capped":               {step: verdict.Step{Cap: 2}, want: []string{"b", "c"}},
		"a cap no one reaches": {step: verdict.Step{Cap: 9}, want: []string{"b", "c", "d"}},
		"the sick come last":   {req: verdict.Request{IncludeUnhealthy: true}, want: []string{"b", "c", "d", "a"}},
		"refused by the caller": {
			usable: func(i *registryv1.ServiceInstance) bool { return i.GetService().GetId() != "b" }, want: []string{"c", "d"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var ids []string
			for _, e := range verdict.Take(c.req, c.step, instances, c.usable) {
				ids = append(ids, e.Instance.GetService().GetId())
			}
			require.Equal(t, c.want, ids)
		})
	}
	require.False(t, verdict.Offers(verdict.Take(verdict.Request{IncludeUnhealthy: true}, verdict.Step{}, instances[1:2], nil)))
	require.True(t, verdict.Offers(verdict.Take(verdict.Request{}, verdict.Step{}, instances, nil)))
}

func datacenterGen() *rapid.Generator[verdict.Datacenter] {
	return rapid.Custom(func(t *rapid.T) verdict.Datacenter {
		return verdict.Datacenter{
			Name:      rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "name"),
			Down:      rapid.Bool().Draw(t, "down"),
			RoundTrip: time.Duration(rapid.IntRange(1, 5).Draw(t, "rtt")),
			Measured:  rapid.Bool().Draw(t, "measured"),
		}
	})
}

func worldGen(t *rapid.T) verdict.World {
	w := verdict.World{Own: "a", Known: rapid.SliceOfNDistinct(datacenterGen(), 0, 5, func(d verdict.Datacenter) string { return d.Name }).Draw(t, "known")}
	if rapid.Bool().Draw(t, "policy") {
		w.Policy = &registryv1.FailoverPolicy{}
		for i := range rapid.IntRange(0, 3).Draw(t, "targets") {
			w.Policy.Failover = append(w.Policy.Failover, &registryv1.FailoverTarget{
				Datacenter: rapid.SampledFrom([]string{"a", "b", "x"}).Draw(t, fmt.Sprint("target", i)), Targets: rapid.Uint32Range(0, 3).Draw(t, fmt.Sprint("cap", i)),
			})
		}
	}
	return w
}

func TestPlansAskNobodyTwiceAndNearestFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := worldGen(t)
		req := verdict.Request{
			Datacenter: rapid.SampledFrom([]string{"", "local", "a", "b", "x"}).Draw(t, "dc"),
			Failover:   rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "local"}), 0, 4).Draw(t, "failover"),
			All:        rapid.Bool().Draw(t, "all"), SortByLatency: rapid.Bool().Draw(t, "sort"), PreferLocal: rapid.Bool().Draw(t, "prefer"),
		}
		steps := verdict.Plan(req, w)
		if len(steps) == 0 {
			t.Fatal("nobody is asked")
		}
		seen := map[string]bool{}
		for i, s := range steps {
			if seen[s.Datacenter.Name] {
				t.Fatalf("%s is asked twice", s.Datacenter.Name)
			}
			seen[s.Datacenter.Name] = true
			if s.Cap > 0 && s.Reason != verdict.Policy {
				t.Fatal("only a policy caps")
			}
			if i == 0 {
				continue
			}
			before := steps[i-1]
			sorted := req.All && req.SortByLatency && (i > 1 || !req.PreferLocal) || s.Reason == verdict.Nearest && before.Reason == verdict.Nearest
			if !req.All && i > 1 && before.Datacenter.Down && !s.Datacenter.Down {
				t.Fatal("a lost substitute before a living one")
			}
			if sorted && (req.All || before.Datacenter.Down == s.Datacenter.Down) && s.Datacenter.Measured &&
				(!before.Datacenter.Measured || before.Datacenter.RoundTrip > s.Datacenter.RoundTrip) {
				t.Fatalf("%v before %v", before.Datacenter, s.Datacenter)
			}
		}
		if req.All {
			for _, dc := range w.Known {
				if !seen[dc.Name] {
					t.Fatalf("%s is not asked", dc.Name)
				}
			}
		}
	})
}

func TestTakeNeverAnswersTheSickUnasked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var instances []*registryv1.ServiceInstance
		for i := range rapid.IntRange(0, 8).Draw(t, "n") {
			status := registryv1.HealthStatus(rapid.Int32Range(0, 3).Draw(t, fmt.Sprint("status", i)))
			instances = append(instances, instance(fmt.Sprint(i), status, rapid.SliceOfN(rapid.SampledFrom([]string{"x", "y"}), 0, 2).Draw(t, fmt.Sprint("tags", i))...))
		}
		req := verdict.Request{
			IncludeUnhealthy: rapid.Bool().Draw(t, "sick"), Tags: rapid.SliceOfN(rapid.SampledFrom([]string{"x", "y"}), 0, 2).Draw(t, "wanted"),
		}
		step := verdict.Step{Cap: rapid.IntRange(0, 4).Draw(t, "cap")}
		taken := verdict.Take(req, step, instances, nil)
		if step.Cap > 0 && len(taken) > step.Cap {
			t.Fatal("more than the cap")
		}
		healthy := 0
		for _, i := range instances {
			if i.GetStatus() == passing && !slices.ContainsFunc(req.Tags, func(tag string) bool { return !slices.Contains(i.GetService().GetTags(), tag) }) {
				healthy++
			}
		}
		for i, e := range taken {
			if !req.IncludeUnhealthy && e.Instance.GetStatus() != passing {
				t.Fatal("a sick instance")
			}
			if i < min(healthy, len(taken)) && e.Instance.GetStatus() != passing {
				t.Fatal("a sick instance took a healthy one's place")
			}
			for _, tag := range req.Tags {
				if !slices.Contains(e.Instance.GetService().GetTags(), tag) {
					t.Fatal("a tag is missing")
				}
			}
		}
	})
}
