// Package resolve asks datacenters in the order of a verdict and puts their answers together.
//
// One slow or dead datacenter costs its timeout, never the whole answer. Safe for concurrent use.
package resolve

import (
	"context"
	"fmt"
	"sync"
	"time"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/services/failover-router/internal/catalogue"
	"konsul.dev/services/failover-router/internal/verdict"
)

// Catalogue knows instances and policies.
type Catalogue interface {
	// Instances returns a service's instances in a datacenter; an answer younger than maxAge may be
	// used again.
	Instances(ctx context.Context, datacenter, service string, maxAge time.Duration) catalogue.Answer
	// Policy returns a service's failover policy, nil when it has none.
	Policy(ctx context.Context, service string, maxAge time.Duration) *registryv1.FailoverPolicy
}

// Topology knows the datacenters.
type Topology interface {
	// Current returns the datacenters and a channel that is closed when they change.
	Current() ([]verdict.Datacenter, <-chan struct{})
}

// Outcome is what one datacenter contributed.
type Outcome struct {
	Datacenter string
	Endpoints  int
	// Err is why it could not be asked; its endpoints, if any, are from an earlier answer then.
	Err error
}

// Result is the answer to a request.
type Result struct {
	Endpoints []verdict.Endpoint
	Outcomes  []Outcome
	// FailedOver says that another datacenter than the first choice answered.
	FailedOver bool
}

// Options bound and shape one resolution.
type Options struct {
	// LocalAge is how old an answer about the own datacenter may be; RemoteAge about another one.
	LocalAge, RemoteAge time.Duration
	// Usable refuses instances the caller has had bad luck with; nil: none.
	Usable func(dc string, instance *registryv1.ServiceInstance) bool
}

// Params is what a resolver is made of.
type Params struct {
	Datacenter string
	Catalogue  Catalogue
	Topology   Topology
	// Timeout bounds the question to one datacenter.
	Timeout time.Duration
	Metrics *Metrics
}

// Resolver returns requests.
type Resolver struct{ p Params }

// New returns a resolver.
func New(p Params) *Resolver { return &Resolver{p: p} }

// downDivisor shortens the question to a datacenter that gossip has lost: it gets a chance to
// answer, but a small one.
const downDivisor = 4

// Resolve returns a request. It fails only if the request is malformed or ctx ends.
func (r *Resolver) Resolve(ctx context.Context, req verdict.Request, o Options) (Result, error) {
	start := time.Now()
	world := verdict.World{Own: r.p.Datacenter}
	world.Known, _ = r.p.Topology.Current()
	var result Result
	if req.All {
		result = r.all(ctx, req, verdict.Plan(req, world), o)
	} else {
		result = r.first(ctx, req, world, o)
	}
	if err := ctx.Err(); err != nil {
		return Result{}, fmt.Errorf("resolve %s: %w", req.Service, err)
	}
	r.p.Metrics.resolved(r.firstChoice(req, world), req, result, time.Since(start))
	return result, nil
}

// firstChoice names the first choice for a metric, whose labels callers must not make up.
func (r *Resolver) firstChoice(req verdict.Request, world verdict.World) string {
	name := req.Datacenter
	if name == "" || name == verdict.OwnAlias {
		return r.p.Datacenter
	}
	for _, dc := range world.Known {
		if dc.Name == name {
			return name
		}
	}
	return "unknown"
}

// all asks every datacenter at once.
func (r *Resolver) all(ctx context.Context, req verdict.Request, steps []verdict.Step, o Options) Result {
	answers := make([]catalogue.Answer, len(steps))
	var wg sync.WaitGroup
	for i, step := range steps {
		wg.Go(func() { answers[i] = r.ask(ctx, req, step, o) })
	}
	wg.Wait()
	var result Result
	for i, step := range steps {
		endpoints := verdict.Take(req, step, answers[i].Instances, usableIn(step, o))
		result.Endpoints = append(result.Endpoints, endpoints...)
		result.Outcomes = append(result.Outcomes, outcome(step, endpoints, answers[i]))
	}
	return result
}

// first asks one datacenter after the other until one has something to offer. An old answer of a
// datacenter that cannot be asked will do if gossip sees it alive: one lost question is no reason
// to go elsewhere. If gossip has lost it too, its old answer is worth nothing.
func (r *Resolver) first(ctx context.Context, req verdict.Request, world verdict.World, o Options) Result {
	var result Result
	var lastResort []verdict.Endpoint
	try := func(step verdict.Step) bool {
		answer := r.ask(ctx, req, step, o)
		endpoints := verdict.Take(req, step, answer.Instances, usableIn(step, o))
		result.Outcomes = append(result.Outcomes, outcome(step, endpoints, answer))
		if !verdict.Offers(endpoints) {
			if len(lastResort) == 0 || !verdict.Offers(lastResort) && verdict.Offers(endpoints) {
				lastResort = endpoints
			}
			return false
		}
		result.Endpoints = endpoints
		return true
	}
	// The policy is looked up only when it is needed.
	plan := verdict.Plan(req, world)
	if try(plan[0]) {
		return result
	}
	if len(req.Failover) == 0 {
		world.Policy = r.p.Catalogue.Policy(ctx, req.Service, o.RemoteAge)
		plan = verdict.Plan(req, world)
	}
	for _, step := range plan[1:] {
		if ctx.Err() == nil && try(step) {
			result.FailedOver = true
			return result
		}
	}
	result.Endpoints = lastResort
	result.FailedOver = len(lastResort) > 0 && lastResort[0].Datacenter.Name != plan[0].Datacenter.Name
	return result
}

func (r *Resolver) ask(ctx context.Context, req verdict.Request, step verdict.Step, o Options) catalogue.Answer {
	timeout, age := r.p.Timeout, o.RemoteAge
	if step.Datacenter.Name == r.p.Datacenter {
		age = o.LocalAge
	}
	if step.Datacenter.Down {
		timeout /= downDivisor
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answer := r.p.Catalogue.Instances(ctx, step.Datacenter.Name, req.Service, age)
	if answer.Err != nil && step.Datacenter.Down {
		answer.Instances = nil // Two signals agree: what it had is there no more.
	}
	return answer
}

// Answers reports whether a datacenter that gossip has lost answers a question about a service
// nevertheless.
func (r *Resolver) Answers(ctx context.Context, datacenter, service string) bool {
	step := verdict.Step{Datacenter: verdict.Datacenter{Name: datacenter, Down: true}}
	return r.ask(ctx, verdict.Request{Service: service}, step, Options{}).Err == nil
}

func usableIn(step verdict.Step, o Options) func(*registryv1.ServiceInstance) bool {
	if o.Usable == nil {
		return nil
	}
	return func(instance *registryv1.ServiceInstance) bool { return o.Usable(step.Datacenter.Name, instance) }
}

func outcome(step verdict.Step, endpoints []verdict.Endpoint, answer catalogue.Answer) Outcome {
	return Outcome{Datacenter: step.Datacenter.Name, Endpoints: len(endpoints), Err: answer.Err}
}

// Describe returns an error's text as callers may see it.
func Describe(err error) string {
	if err == nil {
		return ""
	}
	if f, ok := fault.As(err); ok {
		return f.Message()
	}
	return "cannot be asked"
}
