package main

import (
	"errors"
	"slices"

	"go.uber.org/fx"

	"konsul.dev/pkg/config"
	"konsul.dev/services/agent"
	"konsul.dev/services/ca"
	failoverrouter "konsul.dev/services/failover-router"
	"konsul.dev/services/gateway"
	"konsul.dev/services/registry"
	"konsul.dev/services/replicator"
	wangossip "konsul.dev/services/wan-gossip"
)

// Config is every service's configuration over one shared base: the same konsul.yaml that the
// services read when each runs on its own.
type Config struct {
	config.Base    `koanf:",squash"`
	CA             ca.Settings             `koanf:"ca"`
	Registry       registry.Settings       `koanf:"registry"`
	WANGossip      wangossip.Settings      `koanf:"wan_gossip"`
	Gateway        gateway.Settings        `koanf:"gateway"`
	Replicator     replicator.Settings     `koanf:"replicator"`
	FailoverRouter failoverrouter.Settings `koanf:"failover_router"`
	Agent          agent.Settings          `koanf:"agent"`
}

// DefaultConfig returns every service's defaults.
func DefaultConfig() Config {
	return Config{
		Base: config.DefaultBase(), CA: ca.DefaultConfig().CA, Registry: registry.DefaultConfig().Registry,
		WANGossip: wangossip.DefaultConfig().WANGossip, Gateway: gateway.DefaultConfig().Gateway,
		Replicator: replicator.DefaultConfig().Replicator, FailoverRouter: failoverrouter.DefaultConfig().FailoverRouter,
		Agent: agent.DefaultConfig().Agent,
	}
}

// EnvAliases are the environment variables of ADR-0027's manifest, which name the gateway's
// settings.
func (c *Config) EnvAliases() map[string]string { return (&gateway.Config{}).EnvAliases() }

// services returns each service's own configuration, cut out of c.
func (c *Config) services() (
	*ca.Config, *registry.Config, *wangossip.Config, *gateway.Config, *replicator.Config, *failoverrouter.Config, *agent.Config,
) {
	return &ca.Config{Base: c.Base, CA: c.CA},
		&registry.Config{Base: c.Base, Registry: c.Registry},
		&wangossip.Config{Base: c.Base, WANGossip: c.WANGossip},
		&gateway.Config{Base: c.Base, Gateway: c.Gateway},
		&replicator.Config{Base: c.Base, Replicator: c.Replicator},
		&failoverrouter.Config{Base: c.Base, FailoverRouter: c.FailoverRouter},
		&agent.Config{Base: c.Base, Agent: c.Agent}
}

// Normalize fills what follows from other settings, as each service would.
func (c *Config) Normalize() {
	c.Base.Normalize()
	authority, reg, gossip, gate, repl, router, ag := c.services()
	for _, service := range []config.Loadable{authority, reg, gossip, gate, repl, router, ag} {
		service.Normalize()
	}
	c.CA, c.Registry, c.WANGossip, c.Gateway = authority.CA, reg.Registry, gossip.WANGossip, gate.Gateway
	c.Replicator, c.FailoverRouter, c.Agent = repl.Replicator, router.FailoverRouter, ag.Agent
}

// CheckConfig checks what the settings name, as the agent alone would.
func (c *Config) CheckConfig() error { return c.agent().CheckConfig() }

// ConfigNotes says what --check-config finds that is no mistake.
func (c *Config) ConfigNotes() []string {
	_, reg, _, _, _, _, ag := c.services()
	return append(reg.ConfigNotes(), ag.ConfigNotes()...)
}

func (c *Config) agent() *agent.Config { return &agent.Config{Base: c.Base, Agent: c.Agent} }

// Validate reports every problem of every service once.
func (c *Config) Validate() error {
	authority, reg, gossip, gate, repl, router, ag := c.services()
	var errs []error
	var seen []string
	for _, service := range []config.Loadable{authority, reg, gossip, gate, repl, router, ag} {
		for _, err := range flatten(service.Validate()) {
			// Each service checks the shared sections too.
			if text := err.Error(); !slices.Contains(seen, text) {
				seen, errs = append(seen, text), append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func flatten(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}

// Module runs a whole datacenter. The order is that of start; it is reversed at stop.
func Module(cfg Config) fx.Option {
	authority, reg, gossip, gate, repl, router, ag := cfg.services()
	return fx.Options(
		ca.Module(*authority),
		registry.Module(*reg),
		wangossip.Module(*gossip),
		gateway.Module(*gate),
		replicator.Module(*repl),
		failoverrouter.Module(*router),
		agent.Module(*ag),
	)
}
