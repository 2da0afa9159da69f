// Package workload finds healthy instances of the own datacenter's services for connections that
// end at this gateway, and decides who may reach them.
package workload

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/clock"
)

const (
	// queryTimeout bounds a question to the registry that several connections may be waiting for.
	queryTimeout = 3 * time.Second
	// maxServices bounds what is remembered.
	maxServices = 4096
)

// Catalogue asks the registry. Safe for concurrent use.
type Catalogue struct {
	client registryv1.CatalogServiceClient
	clock  clock.Clock
	fresh  time.Duration
	lease  time.Duration
	flight singleflight.Group

	mu    sync.Mutex
	known map[string]answer
}

type answer struct {
	addresses []string
	// at is when the registry said so, asked when it was last asked.
	at, asked time.Time
}

// New returns a catalogue that asks at most every fresh per service, and lives on the last answer
// for at most lease when the registry does not reply.
func New(client registryv1.CatalogServiceClient, clk clock.Clock, fresh, lease time.Duration) *Catalogue {
	return &Catalogue{client: client, clock: clk, fresh: fresh, lease: lease, known: map[string]answer{}}
}

// Instances returns the addresses of the passing instances of a service; none is no error.
func (c *Catalogue) Instances(ctx context.Context, service string) ([]string, error) {
	c.mu.Lock()
	last, known := c.known[service]
	c.mu.Unlock()
	if known && c.clock.Now().Sub(last.asked) < c.fresh {
		return last.addresses, nil
	}
	outcome := c.flight.DoChan(service, func() (any, error) {
		// One asks for all who wait; that one may give up without the others.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), queryTimeout)
		defer cancel()
		return c.ask(ctx, service)
	})
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case result := <-outcome:
		addresses, _ := result.Val.([]string)
		return addresses, result.Err
	}
}

func (c *Catalogue) ask(ctx context.Context, service string) ([]string, error) {
	resp, err := c.client.QueryService(ctx, &registryv1.QueryServiceRequest{
		Service: service, PassingOnly: true, ReadMode: registryv1.ReadMode_READ_MODE_STALE,
	})
	now := c.clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		last, known := c.known[service]
		if !known || now.Sub(last.at) >= c.lease {
			return nil, fmt.Errorf("query instances of %q: %w", service, err)
		}
		last.asked = now
		c.known[service] = last
		return last.addresses, nil
	}
	addresses := make([]string, 0, len(resp.GetInstances()))
	for _, instance := range resp.GetInstances() {
		addresses = append(addresses, address(instance))
	}
	if len(addresses) == 0 {
		// Names are a caller's choice: unknown ones must not pile up.
		delete(c.known, service)
		return nil, nil
	}
	if len(c.known) >= maxServices {
		clear(c.known)
	}
	c.known[service] = answer{addresses: addresses, at: now, asked: now}
	return addresses, nil
}

// address returns host:port of an instance; a service without an address is on its node's.
func address(instance *registryv1.ServiceInstance) string {
	host := instance.GetService().GetAddress()
	if host == "" {
		host = instance.GetNode().GetAddress()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(instance.GetService().GetPort())))
}
