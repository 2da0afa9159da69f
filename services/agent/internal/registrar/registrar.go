// Package registrar keeps the registry saying what this node says.
//
// It pushes changes as they happen, and compares everything in full at the start, after every
// failure or reconnection, and at least every interval: whatever was lost, changed or added behind
// its back is put right then. While the registry is away it tries again for ever, and nothing on
// the node waits for it. One goroutine runs it; the triggers are safe for concurrent use.
package registrar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/obs"
	"konsul.dev/services/agent/internal/local"
	"konsul.dev/services/agent/internal/reconcile"
)

// Reasons why the registry does not say what this node says.
const (
	// ReasonNotCompared means that the registry has not been asked yet.
	ReasonNotCompared = "NOT_COMPARED"
	// ReasonServiceIDTaken means that somebody else has the id of one of this node's services.
	ReasonServiceIDTaken = "SERVICE_ID_TAKEN"
	// ReasonResync means that the registry could not send its services in one piece.
	ReasonResync = "RESYNC"
)

// maxUpdates bounds how many outcomes go into one call.
const maxUpdates = 500

// Registry is what a registrar asks of the registry. Client is the real one.
type Registry interface {
	Actual(ctx context.Context, desired reconcile.Desired) (reconcile.Actual, error)
	Register(ctx context.Context, node *registryv1.Node, instance *reconcile.Instance) error
	Deregister(ctx context.Context, id string) error
	Update(ctx context.Context, updates []*registryv1.CheckUpdate) error
	HasPolicy(ctx context.Context, want *registryv1.FailoverPolicy) (same, some bool, err error)
	SetPolicy(ctx context.Context, policy *registryv1.FailoverPolicy) error
	ServicesOn(ctx context.Context, node string) ([]*registryv1.Service, error)
	DeregisterNode(ctx context.Context, node string) error
}

// Params is what a registrar is made of.
type Params struct {
	State    *local.State
	Registry Registry
	Log      *slog.Logger
	Metrics  *Metrics
	// Interval is the longest time between two full comparisons.
	Interval time.Duration
	// RetryMin and RetryMax bound the waits after a failure.
	RetryMin, RetryMax time.Duration
	// Compared is told of every full comparison, once the registry says what this node says as far
	// as it can.
	Compared func()
}

// Registrar is made by New.
type Registrar struct {
	params  Params
	full    chan struct{} // holds at most one request to compare in full
	push    chan struct{} // holds at most one request to push outcomes
	written map[string]*registryv1.FailoverPolicy

	mu       sync.Mutex
	failure  error // of the last step
	compared bool
	lost     bool
}

// New returns a registrar that does nothing until Run.
func New(p Params) *Registrar {
	return &Registrar{
		params: p, full: make(chan struct{}, 1), push: make(chan struct{}, 1),
		written: map[string]*registryv1.FailoverPolicy{},
		failure: fault.New(fault.Unavailable, ReasonNotCompared, "this node has not been compared with the registry yet"),
	}
}

// Compare asks for a full comparison soon: definitions changed, or the registry is back.
func (r *Registrar) Compare() { trigger(r.full) }

// Lost says that the registry does not know the node as it should, whatever a comparison would
// find. It is registered again soon.
func (r *Registrar) Lost() {
	r.setLost(true)
	r.Compare()
}

func (r *Registrar) setLost(lost bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost = lost
}

func (r *Registrar) isLost() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}

// Push asks to report outcomes soon.
func (r *Registrar) Push() { trigger(r.push) }

func trigger(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // already asked for
	}
}

// Ready returns why the registry has never been told what this node says; nil once it has. What
// goes wrong later, and a failover policy that the primary cannot take now, is in the log and the
// metrics.
func (r *Registrar) Ready(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.compared {
		return nil
	}
	return r.failure
}

// Run keeps the registry up to date until ctx ends.
func (r *Registrar) Run(ctx context.Context) error {
	retry := backoff.New(r.params.RetryMin, r.params.RetryMax)
	compare := true
	for ctx.Err() == nil {
		err := r.step(ctx, compare)
		r.note(ctx, err)
		if err != nil {
			compare = true
			// The only error is that ctx has ended, which the loop sees.
			_ = retry.Wait(ctx)
			continue
		}
		retry.Reset()
		timer := time.NewTimer(r.params.Interval - rand.N(r.params.Interval/10+1))
		select {
		case <-ctx.Done():
		case <-r.full:
			compare = true
		case <-r.push:
			compare = false
		case <-timer.C:
			compare = true
		}
		timer.Stop()
	}
	return nil
}

func (r *Registrar) step(ctx context.Context, compare bool) error {
	if compare {
		return r.compare(ctx)
	}
	return r.report(ctx, r.params.State.Unreported())
}

// note keeps the outcome of a step, and logs it when it is another than before.
func (r *Registrar) note(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return // a step that the end interrupted says nothing about the registry
	}
	r.mu.Lock()
	before := r.failure
	r.failure = err
	r.mu.Unlock()
	r.params.Metrics.synced(err)
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		r.params.Log.WarnContext(ctx, "registry not up to date; trying again", obs.KeyError, err)
	case err == nil && before != nil:
		r.params.Log.InfoContext(ctx, "registry is up to date", "services", len(r.params.State.Services()))
	}
}

func (r *Registrar) report(ctx context.Context, updates []*registryv1.CheckUpdate) error {
	for batch := range slices.Chunk(updates, maxUpdates) {
		if err := r.params.Registry.Update(ctx, batch); err != nil {
			return err
		}
		r.params.State.Reported(batch)
	}
	return nil
}

// compare does a full comparison. What fails for one service does not keep the others from being
// put right, unless the registry is away.
func (r *Registrar) compare(ctx context.Context) error {
	desired := r.params.State.Desired()
	actual, err := r.params.Registry.Actual(ctx, desired)
	if err != nil {
		return err
	}
	if r.isLost() {
		actual.Node = nil
	}
	plan := reconcile.Diff(desired, actual)
	if desired.Node.GetLivenessTtl() == nil && actual.Node.GetLivenessTtl() != nil {
		// What is left out stays: that nobody expects heartbeats any more must be said.
		desired.Node = proto.CloneOf(desired.Node)
		desired.Node.LivenessTtl = durationpb.New(0)
	}
	r.params.State.Synced(plan.Matching...)
	var errs []error
	for _, step := range r.steps(desired.Node, plan) {
		err := step(ctx)
		errs = append(errs, err)
		if away(err) {
			return errors.Join(errs...)
		}
	}
	r.mu.Lock()
	r.compared = true
	r.mu.Unlock()
	r.params.Compared()
	for _, c := range plan.Conflicts {
		r.params.State.Unsynced(c.ServiceID)
		errs = append(errs, fault.New(fault.AlreadyExists, ReasonServiceIDTaken, "service id %q belongs to node %s", c.ServiceID, c.Node).
			WithRemedy("give each instance of the datacenter an id of its own, or deregister the other one, or take it over with replace (--replace)"))
	}
	return errors.Join(append(errs, r.policies(ctx))...)
}

// away reports whether the registry cannot be reached, so that going on is of no use.
func away(err error) bool {
	code := fault.CodeOf(err)
	return err != nil && (code == fault.Unavailable || code == fault.DeadlineExceeded || code == fault.Canceled)
}

func (r *Registrar) steps(node *registryv1.Node, plan reconcile.Plan) []func(context.Context) error {
	var steps []func(context.Context) error
	if plan.RegisterNode {
		steps = append(steps, func(ctx context.Context) error {
			if err := r.params.Registry.Register(ctx, node, nil); err != nil {
				return err
			}
			r.setLost(false)
			return nil
		})
	}
	for _, instance := range plan.Register {
		steps = append(steps, func(ctx context.Context) error { return r.register(ctx, node, instance) })
	}
	steps = append(steps, func(ctx context.Context) error { return r.report(ctx, plan.Updates) })
	for _, id := range plan.Deregister {
		steps = append(steps, func(ctx context.Context) error {
			if err := r.params.Registry.Deregister(ctx, id); err != nil {
				return err
			}
			r.params.Log.InfoContext(ctx, "service deregistered: its definition is gone", "id", id)
			return nil
		})
	}
	return steps
}

func (r *Registrar) register(ctx context.Context, node *registryv1.Node, instance reconcile.Instance) error {
	if err := r.params.Registry.Register(ctx, node, &instance); err != nil {
		r.params.State.Unsynced(instance.Service.GetId())
		return err
	}
	r.params.State.Synced(instance)
	r.params.Log.InfoContext(ctx, "service registered", "id", instance.Service.GetId())
	return nil
}

// policies writes failover policies that are missing, or that changed here since they were last
// written. A policy is one record for the whole federation: agents whose files disagree must not
// overwrite each other at every comparison.
func (r *Registrar) policies(ctx context.Context) error {
	var errs []error
	for service, policy := range r.params.State.Policies() {
		same, some, err := r.params.Registry.HasPolicy(ctx, policy)
		switch {
		case err != nil:
			errs = append(errs, err)
			continue
		case same, some && proto.Equal(r.written[service], policy):
		default:
			if err := r.params.Registry.SetPolicy(ctx, policy); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		r.written[service] = policy
	}
	return errors.Join(errs...)
}

// Leave deregisters this node with its services, for an agent that does not come back. What people
// registered on it stays, and the node with it; nobody expects heartbeats of it any more. Call it
// after Run has ended.
func (r *Registrar) Leave(ctx context.Context) error {
	node := proto.CloneOf(r.params.State.Node())
	services, err := r.params.Registry.ServicesOn(ctx, node.GetName())
	if err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	ours := slices.DeleteFunc(slices.Clone(services), func(s *registryv1.Service) bool { return !reconcile.Ours(s) })
	if len(ours) == len(services) {
		if err := r.params.Registry.DeregisterNode(ctx, node.GetName()); err != nil {
			return fmt.Errorf("leave: %w", err)
		}
		return nil
	}
	node.LivenessTtl = durationpb.New(0)
	errs := []error{r.params.Registry.Register(ctx, node, nil)}
	for _, service := range ours {
		errs = append(errs, r.params.Registry.Deregister(ctx, service.GetId()))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	return nil
}
