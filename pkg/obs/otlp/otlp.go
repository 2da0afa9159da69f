// Package otlp sends traces to an OpenTelemetry collector. It is a package of its own for the sake
// of programs that use the SDK: they would link the exporter, and gRPC would offer its compression
// with each of their calls.
package otlp

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"konsul.dev/pkg/obs"
)

// Exporter returns what sends spans to the endpoint that cfg names. It does not wait for the
// collector.
func Exporter(ctx context.Context, cfg obs.Config) (sdktrace.SpanExporter, error) {
	options := []otlptracegrpc.Option{otlptracegrpc.WithEndpoint(cfg.OTLPEndpoint)}
	if cfg.OTLPInsecure {
		options = append(options, otlptracegrpc.WithInsecure())
	}
	exporter, err := otlptracegrpc.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("open OTLP exporter to %q: %w", cfg.OTLPEndpoint, err)
	}
	return exporter, nil
}
