// Package catalogue asks the own registry which instances a service has in a datacenter, and keeps
// the returns for a bounded time.
//
// An answer may be used again while it is younger than the caller's limit. When the registry or the
// datacenter behind it cannot be asked, the last answer stands in, marked as stale, but only for
// the lease: after that a dead datacenter's instances are gone. Safe for concurrent use.
package catalogue

import (
	"context"
	"sync"
	"time"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
)

// maxEntries bounds the cache; one entry is one service in one datacenter, or one policy.
const maxEntries = 10_000

// Answer is what is known of a service in a datacenter.
type Answer struct {
	// Instances must not be changed.
	Instances []*registryv1.ServiceInstance
	// Err is why the datacenter could not be asked now; Instances may hold an older answer
	// nevertheless.
	Err error
}

// Stale says that the instances are from an earlier answer.
func (a Answer) Stale() bool { return a.Err != nil && a.Instances != nil }

// Params is what a catalogue is made of.
type Params struct {
	Registry   registryv1.CatalogServiceClient
	Datacenter string
	Lease      time.Duration
	Clock      clock.Clock
}

// Catalogue returns from the registry or from memory.
type Catalogue struct {
	p Params

	mu        sync.Mutex
	instances map[key]kept[[]*registryv1.ServiceInstance]
	failures  map[key]kept[error] // so that a dead datacenter costs one caller its timeout, not everyone
	policies  map[string]kept[*registryv1.FailoverPolicy]
}

type key struct{ datacenter, service string }

type kept[T any] struct {
	value T
	at    time.Time
}

// New returns a catalogue that remembers nothing yet.
func New(p Params) *Catalogue {
	return &Catalogue{
		p: p, instances: map[key]kept[[]*registryv1.ServiceInstance]{}, failures: map[key]kept[error]{}, policies: map[string]kept[*registryv1.FailoverPolicy]{},
	}
}

// Instances returns a service's instances in a datacenter, whatever their health. An answer, or a
// failure to get one, is used again while it is younger than maxAge; zero asks anew. The call takes
// at most until ctx ends.
func (c *Catalogue) Instances(ctx context.Context, datacenter, service string, maxAge time.Duration) Answer {
	k, now := key{datacenter, service}, c.p.Clock.Now()
	c.mu.Lock()
	old, have := c.instances[k]
	failure, failed := c.failures[k]
	c.mu.Unlock()
	if have && now.Sub(old.at) < maxAge {
		return Answer{Instances: old.value}
	}
	var fresh []*registryv1.ServiceInstance
	var err error
	if failed && now.Sub(failure.at) < maxAge {
		err = failure.value
	} else {
		fresh, err = c.ask(ctx, datacenter, service)
		c.learn(k, now, fresh, err)
	}
	switch {
	case err == nil:
		return Answer{Instances: fresh}
	case have && now.Sub(old.at) < c.p.Lease:
		return Answer{Instances: old.value, Err: err}
	default:
		return Answer{Err: err}
	}
}

// learn keeps what a question that was asked at some time brought.
func (c *Catalogue) learn(k key, asked time.Time, fresh []*registryv1.ServiceInstance, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	oldest := asked.Add(-c.p.Lease)
	switch {
	case err == nil:
		keep(c.instances, k, kept[[]*registryv1.ServiceInstance]{fresh, asked}, oldest)
		delete(c.failures, k)
	case fault.CodeOf(err) != fault.Canceled: // the caller's change of mind says nothing about the datacenter
		keep(c.failures, k, kept[error]{err, c.p.Clock.Now()}, oldest)
	}
}

func (c *Catalogue) ask(ctx context.Context, datacenter, service string) ([]*registryv1.ServiceInstance, error) {
	req := &registryv1.QueryServiceRequest{Service: service, Datacenter: datacenter}
	resp, err := c.p.Registry.QueryService(ctx, req)
	if datacenter == c.p.Datacenter && fault.ReasonOf(err) == fault.ReasonNoLeader {
		// Between two leaders any server's copy is better than none.
		req.ReadMode = registryv1.ReadMode_READ_MODE_STALE
		resp, err = c.p.Registry.QueryService(ctx, req)
	}
	if err != nil {
		return nil, err
	}
	if resp.GetInstances() == nil {
		return []*registryv1.ServiceInstance{}, nil
	}
	return resp.GetInstances(), nil
}

// Policy returns a service's failover policy; nil when it has none, or when it cannot be had.
func (c *Catalogue) Policy(ctx context.Context, service string, maxAge time.Duration) *registryv1.FailoverPolicy {
	c.mu.Lock()
	old, have := c.policies[service]
	c.mu.Unlock()
	age := c.p.Clock.Now().Sub(old.at)
	if have && age < maxAge {
		return old.value
	}
	asked := c.p.Clock.Now()
	resp, err := c.p.Registry.GetFailoverPolicy(ctx, &registryv1.GetFailoverPolicyRequest{
		Service: service, ReadMode: registryv1.ReadMode_READ_MODE_STALE,
	})
	switch {
	case err == nil, fault.CodeOf(err) == fault.NotFound:
		c.mu.Lock()
		defer c.mu.Unlock()
		keep(c.policies, service, kept[*registryv1.FailoverPolicy]{resp.GetPolicy(), asked}, asked.Add(-c.p.Lease))
		return resp.GetPolicy()
	default:
		// A policy says where to go, not who is alive: an old one is as good as it ever was.
		return old.value
	}
}

// keep stores an entry; a full cache first drops what is older than the lease, then everything.
func keep[K comparable, T any](entries map[K]kept[T], k K, entry kept[T], oldest time.Time) {
	if len(entries) >= maxEntries {
		for other, e := range entries {
			if e.at.Before(oldest) {
				delete(entries, other)
			}
		}
		if len(entries) >= maxEntries {
			clear(entries)
		}
	}
	entries[k] = entry
}
