// Package gateway is the only door of a datacenter.
//
// Port 8443 carries everything between datacenters: it reads the server name of each TLS connection
// and passes the connection on, never decrypting what is not for the own datacenter's workloads. Port
// 8500 is for people: REST and gRPC over TLS, a bearer token on every call.
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
	"context"

	"go.uber.org/fx"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/ops"
)

// Name is the service's name in identities, logs and folders.
const Name = "gateway"

// Module runs a gateway in a process that includes konsulfx.Base.
func Module(cfg Config) fx.Option {
	return fx.Module(Name, fx.Invoke(func(
		lc fx.Lifecycle, shutdowner fx.Shutdowner, telemetry *obs.Telemetry, clk clock.Clock, operations *ops.Server,
	) error {
		service, err := New(cfg, Deps{
			Telemetry: telemetry.For(Name), Clock: clk, Fail: konsulfx.Fail(shutdowner),
			Ready: operations.Ready, Metrics: operations.Handler(),
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
