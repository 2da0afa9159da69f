// Package failoverrouter says which instances of a service its callers should use now, over all
// datacenters, and takes callers without an SDK there itself.
//
// Contents: config.go (what it is told), service.go (its life), internal/verdict (who is chosen, and
// why), internal/resolve (who is asked, in which order), internal/catalogue (what the registry
// answers, and for how long that holds), internal/topology (the datacenters, from gossip), internal/api
// (gRPC), internal/proxy (HTTP).
//
// It keeps no state that matters: any number may run in a datacenter.
package failoverrouter

import (
	"context"

	"go.uber.org/fx"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/ops"
)

// Name is the service's name in identities, logs and metrics.
const Name = "failover-router"

// Module runs a failover-router in a process that includes konsulfx.Base.
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
