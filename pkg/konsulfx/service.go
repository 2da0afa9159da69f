package konsulfx

import (
	"context"
	"errors"

	"go.uber.org/fx"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/ops"
)

// Process is what a service takes from the process it runs in.
type Process struct {
	// Telemetry's log lines name the service.
	Telemetry *obs.Telemetry
	Clock     clock.Clock
	Ops       *ops.Server
	// Fail is told once when a loop fails. It ends the process with a non-zero exit code.
	Fail func(error)
	// Version is the program's version; empty: unknown.
	Version string
	// Identity is who the service is; nil: it enrolls with the datacenter's ca.
	Identity identity.Source
}

// Service is a service as a process runs it.
type Service interface {
	// Start acquires what the service needs and returns; what runs on is the service's own.
	Start(ctx context.Context) error
	// Stop mirrors Start, at most until ctx ends.
	Stop(ctx context.Context) error
	// Ready returns why the service cannot serve; asked only once it has started.
	Ready(ctx context.Context) error
	// Identity returns who the service is, once it has started.
	Identity() identity.Source
}

var errNotStarted = errors.New("not started")

// Module runs one service. The service is not ready before it has started, and the process's
// telemetry port opens with the identity of the first that has. Nothing is provided to others.
func Module(name string, build func(Process) (Service, error)) fx.Option {
	return fx.Module(name, fx.Invoke(func(
		lc fx.Lifecycle, shutdowner fx.Shutdowner, telemetry *obs.Telemetry, clk clock.Clock, operations *ops.Server, reloads *reloads,
	) error {
		service, err := build(Process{Telemetry: telemetry.For(name), Clock: clk, Ops: operations, Fail: fail(shutdowner), Version: Version()})
		if err != nil {
			return err
		}
		operations.Add(name, func(context.Context) error { return errNotStarted })
		lc.Append(fx.Hook{
			OnStart: func(ctx context.Context) error {
				if err := service.Start(ctx); err != nil {
					return err
				}
				operations.Add(name, service.Ready)
				reloads.add(service)
				return operations.Expose(service.Identity())
			},
			OnStop: service.Stop,
		})
		return nil
	}))
}
