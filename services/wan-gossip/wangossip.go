// Package wangossip is the gossip between datacenters: who is there, in what state, how far away.
//
// Contents: config.go (what it is told), service.go (its life), pool.go (how the pool is opened),
// internal/members (who may be in the pool), internal/datacenters (members made into datacenters),
// internal/serfpool (Serf), internal/joiner (finding the others), internal/roundtrip (distances),
// internal/keyfile and internal/peerfile (what survives a restart), internal/api (the list, served).
package wangossip

import (
	"context"

	"go.uber.org/fx"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/ops"
)

// Name is the service's name in identities, logs and metrics.
const Name = "wan-gossip"

// Module runs wan-gossip in a process that includes konsulfx.Base.
func Module(cfg Config) fx.Option {
	return fx.Module(Name, fx.Invoke(func(
		lc fx.Lifecycle, shutdowner fx.Shutdowner, telemetry *obs.Telemetry, clk clock.Clock, operations *ops.Server,
	) error {
		service, err := New(cfg, Deps{
			Telemetry: telemetry.For(Name), Clock: clk, Fail: konsulfx.Fail(shutdowner), Version: konsulfx.Version(),
		})
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
