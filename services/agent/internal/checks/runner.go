package checks

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/servicedef"
	"konsul.dev/services/agent/internal/local"
)

// ReasonNoTTLCheck means that there is no TTL check of that name here.
const ReasonNoTTLCheck = "NO_TTL_CHECK"

// maxFirstDelay bounds how long a new check waits for its first run.
const maxFirstDelay = time.Second

// Probe runs an HTTP or TCP check once. Prober's is the real one.
type Probe func(ctx context.Context, check servicedef.Check) local.Outcome

// Runner runs checks until Stop. Safe for concurrent use.
type Runner struct {
	probe   Probe
	observe func(local.CheckKey, servicedef.Check, local.Outcome)
	slots   chan struct{}
	stop    context.CancelFunc
	ctx     context.Context //nolint:containedctx // the runner's own life, which Stop ends
	wg      sync.WaitGroup

	mu      sync.Mutex
	running map[local.CheckKey]*loop
}

type loop struct {
	check   servicedef.Check
	cancel  context.CancelFunc
	done    chan struct{}
	reports chan local.Outcome // of a TTL check
}

// NewRunner returns a runner that runs at most concurrency probes at once, and tells observe how
// each ended. observe must not call the runner.
func NewRunner(probe Probe, concurrency int, observe func(local.CheckKey, servicedef.Check, local.Outcome)) *Runner {
	r := &Runner{probe: probe, observe: observe, slots: make(chan struct{}, concurrency), running: map[local.CheckKey]*loop{}}
	r.ctx, r.stop = context.WithCancel(context.Background())
	return r
}

// Set makes these the checks that run. One that is as before goes on undisturbed; one that was
// removed or changed reports nothing of its old self once Set has returned.
func (r *Runner) Set(checks map[local.CheckKey]servicedef.Check) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, running := range r.running {
		if check, wanted := checks[key]; !wanted || check != running.check {
			running.cancel()
			<-running.done
			delete(r.running, key)
		}
	}
	for key, check := range checks {
		if r.running[key] == nil && r.ctx.Err() == nil {
			r.running[key] = r.start(key, check)
		}
	}
}

func (r *Runner) start(key local.CheckKey, check servicedef.Check) *loop {
	l := &loop{check: check, done: make(chan struct{}), reports: make(chan local.Outcome)}
	var ctx context.Context
	ctx, l.cancel = context.WithCancel(r.ctx)
	r.wg.Go(func() {
		defer close(l.done)
		if check.Kind() == "ttl" {
			r.await(ctx, key, l)
		} else {
			r.repeat(ctx, key, check)
		}
	})
	return l
}

// Stop ends all checks and waits for them.
func (r *Runner) Stop() {
	r.stop()
	r.wg.Wait()
}

// Report tells a TTL check how its service is doing. NotFound when there is no such TTL check here.
func (r *Runner) Report(ctx context.Context, key local.CheckKey, outcome local.Outcome) error {
	r.mu.Lock()
	l := r.running[key]
	r.mu.Unlock()
	if l == nil || l.check.Kind() != "ttl" {
		return fault.New(fault.NotFound, ReasonNoTTLCheck, "service %q has no ttl check %q on this node", key.Service, key.Check).
			WithRemedy("define it in the agent's services_dir")
	}
	outcome.Output = shorten(oneLine(outcome.Output))
	select {
	case l.reports <- outcome:
		return nil
	case <-l.done:
		return fault.New(fault.NotFound, ReasonNoTTLCheck, "the ttl check %q of service %q was just removed", key.Check, key.Service)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// repeat runs an HTTP or TCP check again and again.
func (r *Runner) repeat(ctx context.Context, key local.CheckKey, check servicedef.Check) {
	// Checks that start together, as after a restart, must not stay together.
	delay := rand.N(min(check.Interval, maxFirstDelay))
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		select {
		case <-ctx.Done():
			return
		case r.slots <- struct{}{}:
		}
		outcome := r.probe(ctx, check)
		<-r.slots
		if ctx.Err() != nil {
			return
		}
		r.observe(key, check, outcome)
		timer.Reset(jitter(check.Interval))
	}
}

// jitter returns about d, up to a tenth more or less.
func jitter(d time.Duration) time.Duration { return d - d/10 + rand.N(d/5+1) }

// await listens to the reports of a TTL check.
func (r *Runner) await(ctx context.Context, key local.CheckKey, l *loop) {
	timer := time.NewTimer(l.check.TTL)
	defer timer.Stop()
	for {
		var outcome local.Outcome
		select {
		case <-ctx.Done():
			return
		case outcome = <-l.reports:
			timer.Reset(l.check.TTL)
		case <-timer.C:
			outcome = local.Outcome{
				Status: registryv1.HealthStatus_HEALTH_STATUS_CRITICAL,
				Output: fmt.Sprintf("no report for %s", l.check.TTL),
			}
		}
		r.observe(key, l.check, outcome)
	}
}
