package konsulfx

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/obs"
)

// reloadTimeout bounds a reload: a service that hangs must not keep the process from stopping.
const reloadTimeout = 10 * time.Second

// Reloader is a service that takes in what changed outside while it runs, such as files it reads.
type Reloader interface {
	// Reload reads it anew, at most until ctx ends, and returns what that was, in words for the
	// log.
	Reload(ctx context.Context) ([]string, error)
}

// reloads are the services of a process that reload something. Safe for concurrent use.
type reloads struct {
	mu       sync.Mutex
	services []Reloader
}

func newReloads() *reloads { return &reloads{} }

// add notes a service that has started, if it reloads anything.
func (r *reloads) add(service Service) {
	reloader, ok := service.(Reloader)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.services = append(r.services, reloader)
}

func (r *reloads) all() []Reloader {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.services)
}

// reload takes in what can be changed while a process runs, and says what was and what was not.
// load returns the configuration as it is written now, with its shared part; running is the one
// that the process was started with.
func reload(ctx context.Context, running any, load func() (any, *config.Base, error), telemetry *obs.Telemetry, services *reloads) {
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	const levelKey = "telemetry.log_level"
	done, later := []string{}, []string{}
	var errs []error
	fresh, base, err := load()
	if err != nil {
		errs = append(errs, err)
	} else {
		if telemetry.SetLogLevel(base.Telemetry.LogLevel) {
			done = append(done, levelKey)
		}
		for _, key := range config.Changed(running, fresh) {
			if key != levelKey {
				later = append(later, key)
			}
		}
	}
	for _, service := range services.all() {
		what, err := service.Reload(ctx)
		done, errs = append(done, what...), append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		telemetry.Log.ErrorContext(ctx, "SIGHUP: not everything could be reloaded; the rest stays as it was", obs.KeyError, err)
	}
	// Certificates are no files of the user's: each service renews its own in time.
	telemetry.Log.InfoContext(ctx, "SIGHUP: reloaded what can be changed while it runs", "reloaded", done, "needs_restart", later)
}
