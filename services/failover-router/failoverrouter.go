// Package failoverrouter says which instances of a service its callers should use now, over all
// datacenters, and takes callers without an SDK there itself.
//
// Contents: config.go (what it is told), service.go (its life), internal/verdict (who is chosen,
// and why), internal/resolve (who is asked, in which order), internal/catalogue (what the registry
// answers, and for how long that holds), internal/topology (the datacenters, from gossip),
// internal/api (gRPC), internal/proxy (HTTP).
//
// It keeps no state that matters: any number may run in a datacenter.
package failoverrouter

import (
	"go.uber.org/fx"

	"konsul.dev/pkg/konsulfx"
)

// Name is the service's name in identities, logs and metrics.
const Name = "failover-router"

// Module runs a failover-router in a process that includes konsulfx.Base.
func Module(cfg Config) fx.Option {
	return konsulfx.Module(Name, func(p konsulfx.Process) (konsulfx.Service, error) {
		return New(cfg, p)
	})
}
