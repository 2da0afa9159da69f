// Package replicator copies the federation's global records from the primary datacenter into this one.
//
// Contents: config.go (what it is told), service.go (its life), internal/pull (whom to copy, session
// by session), internal/cursor (what a message means), internal/lag (how far behind), internal/source
// (the primary's end), internal/sink (the local registry's end), internal/api (status).
//
// It keeps no state of its own: the cursor lives in the local registry, beside what it covers. Any
// number of replicators may run in a datacenter.
package replicator

import (
	"context"

	"go.uber.org/fx"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/ops"
)

// Name is the service's name in identities, logs and metrics.
const Name = "replicator"

// Module runs a replicator in a process that includes konsulfx.Base.
func Module(cfg Config) fx.Option {
	return fx.Module(Name, fx.Invoke(func(
		lc fx.Lifecycle, shutdowner fx.Shutdowner, telemetry *obs.Telemetry, clk clock.Clock, operations *ops.Server,
	) error {
		service, err := New(cfg, Deps{Telemetry: telemetry.For(Name), Clock: clk, Fail: konsulfx.Fail(shutdowner)})
		if err != nil {
			return err
		}
		lc.Append(fx.Hook{
			OnStart: func(ctx context.Context) error {
				if err := service.Start(ctx); err != nil {
					return err
				}
				operations.Add(Name, service.Ready)
				return operations.Expose(service.Identity())
			},
			OnStop: service.Stop,
		})
		return nil
	}))
}
