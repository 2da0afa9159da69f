package registry

import (
	"go.uber.org/fx"

	"konsul.dev/pkg/konsulfx"
)

// Module runs a registry server in a process that includes konsulfx.Base.
func Module(cfg Config) fx.Option {
	return konsulfx.Module(Name, func(p konsulfx.Process) (konsulfx.Service, error) {
		return New(cfg, Deps{Telemetry: p.Telemetry, Clock: p.Clock, Fail: p.Fail, Version: konsulfx.Version()})
	})
}
