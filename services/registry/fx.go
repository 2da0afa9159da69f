package registry

import (
	"go.uber.org/fx"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/ops"
)

// Module runs the service in an fx graph that includes konsulfx.Base. It provides nothing to others.
func Module(cfg Config) fx.Option {
	return fx.Module("registry",
		fx.Supply(cfg, fx.Private),
		fx.Provide(func(cfg Config, telemetry *obs.Telemetry, clk clock.Clock, probes *ops.Server, shutdowner fx.Shutdowner) (*Service, error) {
			service, err := New(cfg, Deps{
				Telemetry: telemetry, Clock: clk, Version: konsulfx.Version(),
				Fail: konsulfx.Fail(shutdowner), Enrolled: probes.Expose,
			})
			if err != nil {
				return nil, err
			}
			probes.Add(Name, service.Ready)
			return service, nil
		}, fx.Private),
		fx.Invoke(func(lc fx.Lifecycle, service *Service) {
			lc.Append(fx.Hook{OnStart: service.Start, OnStop: service.Stop})
		}),
	)
}
