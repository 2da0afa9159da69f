// Package wangossip is the gossip between datacenters: who is there, in what state, how far away.
//
// Contents: config.go (what it is told), service.go (its life), pool.go (how the pool is opened),
// internal/members (who may be in the pool), internal/datacenters (members made into datacenters),
// internal/serfpool (Serf), internal/joiner (finding the others), internal/roundtrip (distances),
// internal/keyfile and internal/peerfile (what survives a restart), internal/api (the list,
// served).
package wangossip

import (
	"go.uber.org/fx"

	"konsul.dev/pkg/konsulfx"
)

// Name is the service's name in identities, logs and metrics.
const Name = "wan-gossip"

// Module runs wan-gossip in a process that includes konsulfx.Base.
func Module(cfg Config) fx.Option {
	return konsulfx.Module(Name, func(p konsulfx.Process) (konsulfx.Service, error) {
		return New(cfg, Deps{Process: p})
	})
}
