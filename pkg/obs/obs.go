// Package obs gives a process its voice: logs, metrics and traces, all injected.
//
// Nothing here is global: two datacenters in one process do not see each other's metrics. New is
// called once by the process; everything else receives the Telemetry it made.
package obs

import (
	"context"
	"errors"
	"io"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"konsul.dev/pkg/fault"
)

// Attribute keys of log lines. One word for one idea, everywhere.
const (
	KeyDatacenter = "dc"
	KeyService    = "service"
	KeyNode       = "node"
	KeyPeer       = "peer"
	KeyError      = "error"
	KeyIndex      = "index"
	KeySourceDC   = "source_dc"
	KeyTargetDC   = "target_dc"
	KeyMethod     = "method"
	KeyCode       = "code"
	KeyReason     = "reason"
	KeyDuration   = "duration"
	KeyAddress    = "address"
	KeyTraceID    = "trace_id"
	KeyRequestID  = "request_id"
)

// Config is the `telemetry` section, shared by every service.
type Config struct {
	// LogLevel is debug, info, warn or error. SIGHUP takes another one over without a restart.
	LogLevel string `koanf:"log_level"`
	// LogFormat is json or text.
	LogFormat string `koanf:"log_format"`
	// OTLPEndpoint is host:port of an OTLP/gRPC collector; empty: traces are not exported.
	OTLPEndpoint string `koanf:"otlp_endpoint"`
	// OTLPInsecure sends traces without TLS, for a collector on the same host.
	OTLPInsecure bool `koanf:"otlp_insecure"`
	// Addr is where /metrics, /healthz and /readyz are served over mutual TLS; empty: nowhere.
	Addr string `koanf:"addr"`
}

// DefaultConfig logs at info as JSON and exports no traces.
func DefaultConfig() Config { return Config{LogLevel: "info", LogFormat: "json"} }

// Validate reports every problem at once.
func (c Config) Validate() error {
	var errs []error
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		errs = append(errs, fault.Invalid("telemetry.log_level", "unknown level %q", c.LogLevel).WithRemedy("use debug, info, warn or error"))
	}
	if c.LogFormat != "json" && c.LogFormat != "text" {
		errs = append(errs, fault.Invalid("telemetry.log_format", "unknown format %q", c.LogFormat).WithRemedy("use json or text"))
	}
	return errors.Join(errs...)
}

// Telemetry is what a process logs, counts and traces with. Safe for concurrent use.
type Telemetry struct {
	Log        *slog.Logger
	Metrics    *prometheus.Registry
	Tracer     trace.TracerProvider
	Propagator propagation.TextMapPropagator

	level    *slog.LevelVar
	shutdown func(context.Context) error
}

// New makes the telemetry of one process. service names it, e.g. "konsul-registry"; logs go to out,
// and spans to exporter (see package otlp), or nowhere if it is nil. Call Shutdown at the end, so
// that the last spans leave.
func New(cfg Config, service, datacenter string, out io.Writer, exporter sdktrace.SpanExporter) *Telemetry {
	level := &slog.LevelVar{}
	// One that is unknown was refused by Validate; here it is info.
	_ = level.UnmarshalText([]byte(cfg.LogLevel))
	t := &Telemetry{
		level:      level,
		Log:        newLogger(cfg, level, out).With(KeyDatacenter, datacenter),
		Metrics:    prometheus.NewRegistry(),
		Tracer:     noop.NewTracerProvider(),
		Propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
		shutdown:   func(context.Context) error { return nil },
	}
	t.Metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if exporter == nil {
		return t
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", service),
			attribute.String("service.namespace", "konsul"),
			attribute.String("konsul.datacenter", datacenter),
		)),
	)
	t.Tracer, t.shutdown = provider, provider.Shutdown
	return t
}

// Discard returns telemetry for tests: it logs nowhere, and its metrics are its own.
func Discard() *Telemetry {
	return &Telemetry{
		level:      &slog.LevelVar{},
		Log:        slog.New(slog.DiscardHandler),
		Metrics:    prometheus.NewRegistry(),
		Tracer:     noop.NewTracerProvider(),
		Propagator: propagation.TraceContext{},
		shutdown:   func(context.Context) error { return nil },
	}
}

// Traces reports whether spans go anywhere.
func (t *Telemetry) Traces() bool {
	_, silent := t.Tracer.(noop.TracerProvider)
	return !silent
}

// SetLogLevel changes from what level on lines are written, in all copies, and reports whether it
// was another. A level that is none changes nothing.
func (t *Telemetry) SetLogLevel(text string) (changed bool) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(text)); err != nil || level == t.level.Level() {
		return false
	}
	t.level.Set(level)
	return true
}

// For returns a copy whose log lines name the service.
func (t *Telemetry) For(service string) *Telemetry {
	c := *t
	c.Log = t.Log.With(KeyService, service)
	return &c
}

// Shutdown sends what is still buffered, at most until ctx ends.
func (t *Telemetry) Shutdown(ctx context.Context) error { return t.shutdown(ctx) }
