// Package ready says when a federation may be called ready: every datacenter takes the management
// token, has its samples healthy, and sees every other datacenter alive.
//
// It asks through an interface and knows neither processes nor containers. Its functions keep no
// state.
package ready

import (
	"context"
	"fmt"
	"time"
)

// interval is how often a waiting caller looks again, attempt how long one look may take.
const (
	interval = 100 * time.Millisecond
	attempt  = 3 * time.Second
)

// Federation is what is asked of a datacenter's edge, with the management token.
type Federation interface {
	// Serving returns nil once the registry behind the edge has a leader and knows the token.
	Serving(ctx context.Context) error
	// CreateJoinToken makes the token that admits a datacenter.
	CreateJoinToken(ctx context.Context, datacenter string) (string, error)
	// Datacenters returns what gossip knows there.
	Datacenters(ctx context.Context) ([]Member, error)
	// Passing returns how many healthy instances of a service the datacenter has.
	Passing(ctx context.Context, service string) (int, error)
	Close() error
}

// Member is a datacenter as another one sees it.
type Member struct {
	Name  string
	Alive bool
	// RoundTrip is negative until it is measured, and zero for the own datacenter.
	RoundTrip time.Duration
}

// Serves returns nil once a datacenter takes the management token and each of the services has a
// healthy instance there. In a secondary the former means that replication has brought the token.
func Serves(ctx context.Context, dc Federation, services []string) error {
	if err := dc.Serving(ctx); err != nil {
		return err
	}
	for _, service := range services {
		n, err := dc.Passing(ctx, service)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("no healthy instance of the sample %s", service)
		}
	}
	return nil
}

// Connected returns nil once a datacenter sees all the named ones alive.
func Connected(ctx context.Context, dc Federation, names []string) error {
	members, err := dc.Datacenters(ctx)
	if err != nil {
		return err
	}
	alive := map[string]bool{}
	for _, m := range members {
		alive[m.Name] = m.Alive
	}
	for _, name := range names {
		if !alive[name] {
			return fmt.Errorf("%s is not alive in its gossip", name)
		}
	}
	return nil
}

// Await looks until look answers nil. It gives up when ctx ends, saying what it waited for, or when
// hopeless returns an error; a nil hopeless never does.
func Await(ctx context.Context, what string, look func(context.Context) error, hopeless func() error) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		once, cancel := context.WithTimeout(ctx, attempt)
		err := look(once)
		cancel()
		if err == nil {
			return nil
		}
		if hopeless != nil {
			if reason := hopeless(); reason != nil {
				return reason
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; last: %w", what, context.Cause(ctx), err)
		case <-ticker.C:
		}
	}
}
