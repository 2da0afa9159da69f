// Package gateway is the only door of a datacenter.
//
// Port 8443 carries everything between datacenters: it reads the server name of each TLS connection
// and passes the connection on, never decrypting what is not for the own datacenter's workloads.
// Port 8500 is for people: REST and gRPC over TLS, a bearer token on every call.
//
// Contents: config.go (what it is told), service.go (its life), wiring.go (its parts),
// internal/listener (8443: accept, route, dial, drain), internal/sni (the server name),
// internal/route (where to), internal/balance (to which of them), internal/topology (which
// datacenters there are), internal/workload (who may reach workloads, and where they are),
// internal/splice (moving bytes), internal/restedge (8500).
//
// It keeps no state but the last known topology, and can be killed at any time.
package gateway

import (
	"go.uber.org/fx"

	"konsul.dev/pkg/konsulfx"
)

// Name is the service's name in identities, logs and folders.
const Name = "gateway"

// Module runs a gateway in a process that includes konsulfx.Base.
func Module(cfg Config) fx.Option {
	return konsulfx.Module(Name, func(p konsulfx.Process) (konsulfx.Service, error) {
		return New(cfg, Deps{Process: p, Ready: p.Ops.Ready, Metrics: p.Ops.Handler()})
	})
}
