package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/connectivity"

	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/servicedef"
	"konsul.dev/services/agent/internal/definitions"
	"konsul.dev/services/agent/internal/local"
)

// reloader follows the definition files. It belongs to one goroutine at a time.
type reloader struct {
	*Service
	loader  *definitions.Loader
	known   map[string]string // what is wrong, by file
	ignored []string          // what is in the folder and is not read
	asked   chan chan int     // who waits for the definitions to be read, and for how many there are
}

func newReloader(s *Service) *reloader {
	return &reloader{Service: s, loader: definitions.New(s.cfg.folder(), s.cfg.Server.Datacenter), asked: make(chan chan int)}
}

// run reads the definitions now and again, so that a changed file takes effect within the interval.
func (r *reloader) run(ctx context.Context) error {
	ticker := time.NewTicker(r.cfg.Agent.ReloadInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			r.load(ctx)
		case answer := <-r.asked:
			answer <- r.load(ctx)
		}
	}
}

// now has the definitions read at once, and returns how many there are.
func (r *reloader) now(ctx context.Context) (int, error) {
	answer := make(chan int, 1)
	select {
	case r.asked <- answer:
		return <-answer, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("reload service definitions: %w", context.Cause(ctx))
	}
}

func (r *reloader) load(ctx context.Context) (count int) {
	set, problems, changed := r.loader.Load()
	if changed {
		r.complain(ctx, problems)
		if !slices.Equal(r.ignored, set.Ignored) {
			r.ignored = set.Ignored
			if len(set.Ignored) > 0 {
				r.process.Telemetry.Log.WarnContext(ctx, "files in services_dir are not read: definitions are *.yaml, *.yml and *.json",
					"files", someOf(set.Ignored), "count", len(set.Ignored))
			}
		}
		r.define(set)
	}
	return len(set.Definitions)
}

// complain logs what is newly wrong with the files.
func (r *reloader) complain(ctx context.Context, problems []definitions.Problem) {
	before := r.known
	r.known = map[string]string{}
	for _, p := range problems {
		err := inFile(r.cfg.Agent.ServicesDir, p)
		r.known[p.File] = err.Error()
		if before[p.File] != err.Error() {
			r.process.Telemetry.Log.ErrorContext(ctx, "service definition is wrong; its last good version stays in force",
				"file", p.File, obs.KeyError, err)
		}
	}
	r.metrics.definitionErrors.Set(float64(len(r.known)))
}

// maxNamed bounds the files that a line names.
const maxNamed = 20

func someOf(names []string) []string { return names[:min(len(names), maxNamed)] }

func (s *Service) define(set definitions.Set) {
	s.state.Define(set.Definitions, set.Complete)
	s.runner.Set(s.state.Checks())
	s.registrar.Compare()
}

// observe takes the outcome of a check.
func (s *Service) observe(key local.CheckKey, check servicedef.Check, outcome local.Outcome) {
	s.metrics.ran(check, outcome.Status)
	if s.state.Observe(key, outcome) {
		s.registrar.Push()
	}
}

// reconnected asks for a full comparison whenever the registry is reached again: nobody knows what
// was lost meanwhile.
func (s *Service) reconnected(ctx context.Context) error {
	for {
		state := s.registry.GetState()
		if state == connectivity.Ready {
			s.registrar.Compare()
		}
		if !s.registry.WaitForStateChange(ctx, state) {
			return nil
		}
	}
}
