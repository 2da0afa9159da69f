package compose

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Cut takes a datacenter off the WAN network, as a dead line would; it goes on inside.
func (l *Lab) Cut(ctx context.Context, dc string) error {
	ids, err := l.onWAN(ctx, dc)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if _, err := docker(ctx, "network", "disconnect", l.wan(), id); err != nil {
			return err
		}
	}
	return nil
}

// Mend joins a datacenter to the WAN network again, under the names and addresses it had.
func (l *Lab) Mend(ctx context.Context, dc string) error {
	ids, err := l.onWAN(ctx, dc)
	if err != nil {
		return err
	}
	for _, id := range ids {
		labels, err := docker(ctx, "inspect", "--format", `{{index .Config.Labels "konsul.wan-address"}} {{index .Config.Labels "com.docker.compose.service"}}`, id)
		if err != nil {
			return err
		}
		address, service, _ := strings.Cut(strings.TrimSpace(labels), " ")
		if _, err := docker(ctx, "network", "connect", "--ip", address, "--alias", service, l.wan(), id); err != nil {
			return err
		}
	}
	return nil
}

// onWAN returns the containers of a datacenter that belong on the WAN network.
func (l *Lab) onWAN(ctx context.Context, dc string) ([]string, error) {
	if err := known(dc); err != nil {
		return nil, err
	}
	ids, err := docker(ctx, "ps", "--all", "--quiet", "--filter", l.ofProject(),
		"--filter", "label=konsul.datacenter="+dc, "--filter", "label=konsul.wan=true")
	if err != nil {
		return nil, err
	}
	if ids == "" {
		return nil, fmt.Errorf("%s has no containers: is the compose lab up?", dc)
	}
	return strings.Fields(ids), nil
}

// Kill ends a datacenter's containers at once, as a power cut would; its volumes stay.
func (l *Lab) Kill(ctx context.Context, dc string) error {
	if err := known(dc); err != nil {
		return err
	}
	return l.project.run(ctx, append([]string{"kill"}, datacenter{name: dc}.services()...)...)
}

// Start starts a datacenter's containers again and waits until it serves.
func (l *Lab) Start(ctx context.Context, dc string) error {
	if err := known(dc); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, l.o.Timeout, fmt.Errorf("not ready within %s (--timeout)", l.o.Timeout))
	defer cancel()
	i := slices.Index(names(), dc)
	if err := l.project.run(ctx, append([]string{"start"}, datacenters()[i].services()...)...); err != nil {
		return err
	}
	return l.awaitServing(ctx, datacenters()[i])
}

func (l *Lab) wan() string { return l.o.Project + "_wan" }

func known(dc string) error {
	if !slices.Contains(names(), dc) {
		return fmt.Errorf("no datacenter %q: this lab has %s", dc, strings.Join(names(), ", "))
	}
	return nil
}
