// Package verdict decides which instances of a service a caller should use, and why.
//
// Everything here is a plain function: Plan says which datacenters to ask in which order, Take says
// what one datacenter's answer contributes. Who asks, when, and how long it takes is not known
// here.
package verdict

import (
	"cmp"
	"slices"
	"time"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Reason says why an endpoint is in an answer.
type Reason string

// The reasons of the contract (konsul.failoverrouter.v1.Endpoint).
const (
	// Local: it is in the own datacenter, which was the first choice.
	Local Reason = "local"
	// Named: its datacenter was asked for.
	Named Reason = "datacenter"
	// Failover: its datacenter is in the caller's failover list.
	Failover Reason = "failover"
	// Policy: its datacenter is in the service's failover policy.
	Policy Reason = "policy"
	// Nearest: no list says where to go, and its datacenter is the nearest that has any.
	Nearest Reason = "nearest"
)

// OwnAlias is how a caller names its own datacenter without knowing its name.
const OwnAlias = "local"

// Request is what a caller wants.
type Request struct {
	Service string
	// Datacenter is the first choice; empty or OwnAlias: the own one.
	Datacenter string
	// Failover overrides the service's policy.
	Failover         []string
	All              bool
	PreferLocal      bool
	SortByLatency    bool
	IncludeUnhealthy bool
	Tags             []string
}

// Datacenter is what is known of a datacenter before it is asked.
type Datacenter struct {
	Name string
	// Down says that gossip has lost it. It may still answer: it takes two signals to give a
	// datacenter up.
	Down bool
	// RoundTrip means something when Measured.
	RoundTrip time.Duration
	Measured  bool
}

// Step is one datacenter to ask.
type Step struct {
	Datacenter Datacenter
	Reason     Reason
	// Cap is the most endpoints to take; 0: all.
	Cap int
}

// Endpoint is one instance to use.
type Endpoint struct {
	Instance   *registryv1.ServiceInstance
	Datacenter Datacenter
	Reason     Reason
}

// World is what a plan depends on besides the request.
type World struct {
	Own string
	// Known are the datacenters of the federation, with or without the own one.
	Known []Datacenter
	// Policy is the service's failover policy; nil: none.
	Policy *registryv1.FailoverPolicy
}

// Plan returns the datacenters to ask. For a request of all datacenters they are all to be asked,
// and the order is that of the answer. Otherwise they are to be asked one after the other until one
// has something to offer: the first choice, then the caller's list, else the policy, else all
// others by distance. Among the substitutes, those that gossip has lost come last.
func Plan(req Request, w World) []Step {
	if req.All {
		return planAll(req, w)
	}
	first := w.resolve(req.Datacenter)
	reason := Named
	if first == w.Own {
		reason = Local
	}
	steps := []Step{{Datacenter: w.find(first), Reason: reason}}
	rest := w.substitutes(req, first)
	for _, down := range []bool{false, true} {
		for _, s := range rest {
			if s.Datacenter.Down == down && !planned(steps, s.Datacenter.Name) {
				steps = append(steps, s)
			}
		}
	}
	return steps
}

func (w World) substitutes(req Request, first string) []Step {
	var steps []Step
	switch {
	case len(req.Failover) > 0:
		for _, name := range req.Failover {
			steps = append(steps, Step{Datacenter: w.find(w.resolve(name)), Reason: Failover})
		}
	case len(w.Policy.GetFailover()) > 0:
		for _, target := range w.Policy.GetFailover() {
			steps = append(steps, Step{Datacenter: w.find(w.resolve(target.GetDatacenter())), Reason: Policy, Cap: int(target.GetTargets())})
		}
	default:
		for _, dc := range w.all() {
			if dc.Name != first {
				steps = append(steps, Step{Datacenter: dc, Reason: Nearest})
			}
		}
		slices.SortStableFunc(steps, func(a, b Step) int { return nearer(a.Datacenter, b.Datacenter) })
	}
	return steps
}

func planAll(req Request, w World) []Step {
	all := w.all()
	slices.SortFunc(all, func(a, b Datacenter) int {
		if req.PreferLocal && (a.Name == w.Own) != (b.Name == w.Own) {
			if a.Name == w.Own {
				return -1
			}
			return 1
		}
		if req.SortByLatency {
			return nearer(a, b)
		}
		return cmp.Compare(a.Name, b.Name)
	})
	steps := make([]Step, len(all))
	for i, dc := range all {
		steps[i] = Step{Datacenter: dc, Reason: Named}
		if dc.Name == w.Own {
			steps[i].Reason = Local
		}
	}
	return steps
}

// nearer orders by round trip, what is not measured last, ties by name.
func nearer(a, b Datacenter) int {
	if a.Measured != b.Measured {
		if a.Measured {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(a.RoundTrip, b.RoundTrip), cmp.Compare(a.Name, b.Name))
}

func planned(steps []Step, name string) bool {
	return slices.ContainsFunc(steps, func(s Step) bool { return s.Datacenter.Name == name })
}

func (w World) resolve(name string) string {
	if name == "" || name == OwnAlias {
		return w.Own
	}
	return name
}

// find returns what is known of a datacenter; of an unknown one only its name.
func (w World) find(name string) Datacenter {
	if name == w.Own {
		return Datacenter{Name: name, Measured: true}
	}
	for _, dc := range w.Known {
		if dc.Name == name {
			return dc
		}
	}
	return Datacenter{Name: name}
}

// all returns every known datacenter and the own one.
func (w World) all() []Datacenter {
	all := []Datacenter{w.find(w.Own)}
	for _, dc := range w.Known {
		if dc.Name != w.Own {
			all = append(all, dc)
		}
	}
	return all
}

// Take returns what a datacenter's instances contribute, ordered by service id. Unless unhealthy
// ones are asked for, only passing instances are taken; usable, which may be nil, refuses more of
// them.
func Take(req Request, step Step, instances []*registryv1.ServiceInstance, usable func(*registryv1.ServiceInstance) bool) []Endpoint {
	var taken []Endpoint
	for _, instance := range instances {
		passing := instance.GetStatus() == registryv1.HealthStatus_HEALTH_STATUS_PASSING
		if !passing && !req.IncludeUnhealthy || !hasTags(instance, req.Tags) || usable != nil && !usable(instance) {
			continue
		}
		taken = append(taken, Endpoint{Instance: instance, Datacenter: step.Datacenter, Reason: step.Reason})
	}
	slices.SortStableFunc(taken, func(a, b Endpoint) int {
		return cmp.Or(unhealthiness(a)-unhealthiness(b), cmp.Compare(a.Instance.GetService().GetId(), b.Instance.GetService().GetId()))
	})
	if step.Cap > 0 && len(taken) > step.Cap {
		taken = taken[:step.Cap]
	}
	return taken
}

// unhealthiness puts passing instances before the others.
func unhealthiness(e Endpoint) int {
	if e.Instance.GetStatus() == registryv1.HealthStatus_HEALTH_STATUS_PASSING {
		return 0
	}
	return 1
}

// Offers reports whether endpoints are reason enough to look no further: at least one of them
// passes.
func Offers(endpoints []Endpoint) bool {
	return slices.ContainsFunc(endpoints, func(e Endpoint) bool { return unhealthiness(e) == 0 })
}

func hasTags(instance *registryv1.ServiceInstance, tags []string) bool {
	for _, tag := range tags {
		if !slices.Contains(instance.GetService().GetTags(), tag) {
			return false
		}
	}
	return true
}
