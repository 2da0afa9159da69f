// Package ca is the certificate authority of a datacenter: the root in the primary, an intermediate
// in every datacenter, short-lived leaves for every service, and the join tokens that admit a
// datacenter.
//
// It promises that nobody gets an identity without proving the datacenter secret on the very
// connection it asks on, and that a datacenter can only speak for itself. What it must not lose is
// sealed on its disk; join tokens and members are in the registry.
package ca

import (
	"errors"
	"fmt"
	"time"

	"go.uber.org/fx"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsulfx"
)

// Name is the service's name in identities, logs and folders.
const Name = "ca"

const day = 24 * time.Hour

// Settings is the `ca` section.
type Settings struct {
	// Listen is where the gRPC port binds.
	Listen string `koanf:"listen"`
	// LeafTTL is how long a service's certificate is good; it is renewed at two thirds.
	LeafTTL time.Duration `koanf:"leaf_ttl"`
	// IntermediateTTL is how long a datacenter's intermediate certificate is good.
	IntermediateTTL time.Duration `koanf:"intermediate_ttl"`
	// RootTTL is how long the federation's root certificate is good.
	RootTTL time.Duration `koanf:"root_ttl"`
	// JoinTokenFile admits a new datacenter; read at a secondary's first start only.
	JoinTokenFile string `koanf:"join_token_file"`
	// JoinTimeout is how long a first start tries to reach the primary.
	JoinTimeout time.Duration `koanf:"join_timeout"`
	// PrimaryGateways is how other datacenters reach this one's gateways: a primary puts it into
	// join tokens, a secondary into its application.
	PrimaryGateways []string `koanf:"primary_gateways"`
	// JoinTokenTTL is how long a join token works unless its maker says otherwise.
	JoinTokenTTL time.Duration `koanf:"join_token_ttl"`
	// MaxJoinTokenTTL is the longest its maker may say.
	MaxJoinTokenTTL time.Duration `koanf:"max_join_token_ttl"`
	// PreviousSecretFile holds the datacenter secret that was replaced by the one in
	// server.secret_file. What the ca sealed with it is sealed anew at the next start; then the
	// setting and the file can go. It proves nothing.
	PreviousSecretFile string `koanf:"previous_secret_file"`
	// AcceptDatacenterSecret lets components of earlier versions, which prove the datacenter secret
	// itself, get a first certificate. It is for an upgrade: while it is on, whoever has the secret
	// enrols as any component.
	AcceptDatacenterSecret bool `koanf:"accept_datacenter_secret"`
	// WriteRootsFile is where the trust anchors are written as PEM, for clients.
	WriteRootsFile string `koanf:"write_roots_file"`
}

// Config is the ca's configuration.
type Config struct {
	config.Base `koanf:",squash"`
	CA          Settings `koanf:"ca"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{Base: config.DefaultBase(), CA: Settings{
		LeafTTL: day, IntermediateTTL: 365 * day, RootTTL: 10 * 365 * day,
		JoinTimeout: 30 * time.Second, JoinTokenTTL: time.Hour, MaxJoinTokenTTL: day,
	}}
}

// Normalize fills what follows from other settings.
func (c *Config) Normalize() {
	c.Base.Normalize()
	if c.CA.Listen == "" {
		c.CA.Listen = c.Listen(config.PortCA)
	}
	if len(c.CA.PrimaryGateways) == 0 {
		c.CA.PrimaryGateways = c.Endpoints.Gateway
	}
}

// Validate reports every problem at once.
func (c *Config) Validate() error {
	errs := []error{c.Base.Validate(), config.CheckAddress("ca.listen", c.CA.Listen)}
	for _, ttl := range []struct {
		field string
		value time.Duration
	}{
		{"ca.leaf_ttl", c.CA.LeafTTL},
		{"ca.intermediate_ttl", c.CA.IntermediateTTL},
		{"ca.root_ttl", c.CA.RootTTL},
		{"ca.join_timeout", c.CA.JoinTimeout},
		{"ca.join_token_ttl", c.CA.JoinTokenTTL},
		{"ca.max_join_token_ttl", c.CA.MaxJoinTokenTTL},
	} {
		if ttl.value <= 0 {
			errs = append(errs, fault.Invalid(ttl.field, "must be positive, is %s", ttl.value).WithRemedy("give a duration such as 24h"))
		}
	}
	if c.CA.LeafTTL > c.CA.IntermediateTTL || c.CA.IntermediateTTL > c.CA.RootTTL {
		errs = append(errs, fault.Invalid("ca.leaf_ttl", "leaves must not outlive intermediates, nor those the root"))
	}
	if c.CA.JoinTokenTTL > c.CA.MaxJoinTokenTTL {
		errs = append(errs, fault.Invalid("ca.join_token_ttl", "%s is more than ca.max_join_token_ttl, %s", c.CA.JoinTokenTTL, c.CA.MaxJoinTokenTTL))
	}
	for i, gateway := range c.CA.PrimaryGateways {
		errs = append(errs, config.CheckAddress(fmt.Sprintf("ca.primary_gateways[%d]", i), gateway))
	}
	return errors.Join(errs...)
}

// Module runs the ca in a process.
func Module(cfg Config) fx.Option {
	return konsulfx.Module(Name, func(p konsulfx.Process) (konsulfx.Service, error) {
		return New(cfg, p)
	})
}
