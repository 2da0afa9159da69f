// Package konsulfx is the base of every konsul process: its flags, configuration, telemetry and
// life, around the services it runs.
//
// One process has one fx graph. Base provides what the services of a process share; each service's
// module keeps the rest to itself.
package konsulfx

import (
	"context"
	"io"
	"log/slog"
	"os"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/fx"
	"go.uber.org/fx/fxevent"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/config"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/obs/otlp"
	"konsul.dev/pkg/ops"
)

// Timeouts of a process. A secondary's first start waits for its primary; a stop drains
// connections.
const (
	startTimeout = 90 * time.Second
	stopTimeout  = 30 * time.Second
)

// Base provides *obs.Telemetry, clock.Clock and *ops.Server to the services of the process called
// name.
func Base(name string, cfg config.Base) fx.Option { return base(name, cfg, os.Stderr) }

func base(name string, cfg config.Base, logs io.Writer) fx.Option {
	return fx.Options(
		fx.StartTimeout(startTimeout), fx.StopTimeout(stopTimeout),
		fx.Provide(
			clock.System, newReloads,
			func(lc fx.Lifecycle) (*obs.Telemetry, error) {
				var exporter sdktrace.SpanExporter
				if cfg.Telemetry.OTLPEndpoint != "" {
					var err error
					if exporter, err = otlp.Exporter(context.Background(), cfg.Telemetry); err != nil {
						return nil, err
					}
				}
				telemetry := obs.New(cfg.Telemetry, name, cfg.Server.Datacenter, logs, exporter)
				lc.Append(fx.StopHook(telemetry.Shutdown))
				return telemetry, nil
			},
			func(lc fx.Lifecycle, telemetry *obs.Telemetry) *ops.Server {
				server := ops.New(telemetry, cfg.Server.DataDir, name, cfg.Telemetry.Addr)
				lc.Append(fx.Hook{OnStart: server.Start, OnStop: server.Stop})
				return server
			},
		),
		// Constructed first, so that it starts before and stops after every service.
		fx.Invoke(func(*ops.Server) {}),
		fx.WithLogger(func(telemetry *obs.Telemetry) fxevent.Logger {
			logger := &fxevent.SlogLogger{Logger: telemetry.Log}
			logger.UseLogLevel(slog.LevelDebug)
			return logger
		}),
	)
}

// fail returns a function that ends the process with exit code 1.
func fail(shutdowner fx.Shutdowner) func(error) {
	return func(error) {
		// The only error is that the process is already ending.
		_ = shutdowner.Shutdown(fx.ExitCode(1))
	}
}
