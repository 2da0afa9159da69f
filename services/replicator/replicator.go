// Package replicator copies the federation's global records from the primary datacenter into this
// one.
//
// Contents: config.go (what it is told), service.go (its life), internal/pull (whom to copy,
// session by session), internal/cursor (what a message means), internal/lag (how far behind),
// internal/source (the primary's end), internal/sink (the local registry's end), internal/api
// (status).
//
// It keeps no state of its own: the cursor lives in the local registry, beside what it covers. Any
// number of replicators may run in a datacenter.
package replicator

import (
	"go.uber.org/fx"

	"konsul.dev/pkg/konsulfx"
)

// Name is the service's name in identities, logs and metrics.
const Name = "replicator"

// Module runs a replicator in a process that includes konsulfx.Base.
func Module(cfg Config) fx.Option {
	return konsulfx.Module(Name, func(p konsulfx.Process) (konsulfx.Service, error) {
		return New(cfg, p)
	})
}
