// Package agent looks after one node: it registers the node's services as their definition files
// say, runs their checks, and keeps the registry in step with both.
//
// Contents: config.go (what it is told), service.go (its life), watch.go (what happens when a file
// or the registry comes or goes), internal/definitions (the files), internal/checks (the probes),
// internal/local (what this node says), internal/reconcile (what to do so that the registry says
// the same), internal/registrar (doing it), internal/heartbeat (that the node lives), internal/api
// (the local API).
//
// It keeps nothing on disk but its identity: files and registry are all it needs after a restart.
package agent

import (
	"go.uber.org/fx"

	"konsul.dev/pkg/konsulfx"
)

// Name is the service's name in identities, logs and metrics.
const Name = "agent"

// Module runs an agent in a process that includes konsulfx.Base.
func Module(cfg Config) fx.Option {
	return konsulfx.Module(Name, func(p konsulfx.Process) (konsulfx.Service, error) {
		return New(cfg, p)
	})
}
