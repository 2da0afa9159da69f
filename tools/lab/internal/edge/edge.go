// Package edge asks a datacenter's gateway what the lab wants to know, with the Go SDK, as any
// client would.
package edge

import (
	"context"
	"fmt"
	"os"
	"strings"

	"konsul.dev/pkg/konsul"
	"konsul.dev/tools/lab/internal/ready"
)

// client is one datacenter's edge. Safe for concurrent use.
type client struct{ sdk *konsul.Client }

// Connect returns a client for the edge at url, with what a person would take from the env file.
func Connect(url, tokenFile, rootsFile string) (ready.Federation, error) {
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return nil, fmt.Errorf("read management token: %w", err)
	}
	sdk, err := konsul.New(konsul.Config{Addresses: []string{url}, Token: strings.TrimSpace(string(token)), CAFile: rootsFile})
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", url, err)
	}
	return client{sdk: sdk}, nil
}

// Serving returns nil once the registry behind the edge serves writes and knows the token.
func (c client) Serving(ctx context.Context) error {
	status, err := c.sdk.Cluster.Status(ctx, "")
	if err != nil {
		return fmt.Errorf("ask for the cluster's status: %w", err)
	}
	if !status.Available {
		return fmt.Errorf("the registry of %s has no leader", status.Datacenter)
	}
	return nil
}

// CreateJoinToken makes the token that admits a datacenter, with the default life.
func (c client) CreateJoinToken(ctx context.Context, datacenter string) (string, error) {
	token, err := c.sdk.CA.CreateJoinToken(ctx, datacenter, 0)
	if err != nil {
		return "", err
	}
	return token.Token, nil
}

// Datacenters returns what gossip knows there.
func (c client) Datacenters(ctx context.Context) ([]ready.Member, error) {
	datacenters, err := c.sdk.Datacenters.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list datacenters: %w", err)
	}
	var members []ready.Member
	for _, dc := range datacenters {
		members = append(members, ready.Member{Name: dc.Name, Alive: dc.State == konsul.DatacenterAlive, RoundTrip: dc.RoundTrip})
	}
	return members, nil
}

// Passing returns how many healthy instances of a service the datacenter has.
func (c client) Passing(ctx context.Context, service string) (int, error) {
	instances, err := c.sdk.Service.Get(ctx, service, nil)
	if err != nil {
		return 0, fmt.Errorf("query service %s: %w", service, err)
	}
	return len(instances), nil
}

// Close releases the connection.
func (c client) Close() error { return c.sdk.Close() }
