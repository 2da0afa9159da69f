package rpc

import (
	"context"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"konsul.dev/pkg/obs"
)

// A process that exports traces makes a span of every call. One that does not only passes on the
// trace a call belongs to: spans nobody sees cost a tenth of a read.

// serverTracing makes spans of the calls of a server, if the process exports them; if not, its
// interceptor calls received.
func serverTracing(t *obs.Telemetry) []grpc.ServerOption {
	if !t.Traces() {
		return nil
	}
	return []grpc.ServerOption{grpc.StatsHandler(otelgrpc.NewServerHandler(
		otelgrpc.WithTracerProvider(t.Tracer), otelgrpc.WithPropagators(t.Propagator)))}
}

func clientTracing(t *obs.Telemetry) []grpc.DialOption {
	if t.Traces() {
		return []grpc.DialOption{grpc.WithStatsHandler(otelgrpc.NewClientHandler(
			otelgrpc.WithTracerProvider(t.Tracer), otelgrpc.WithPropagators(t.Propagator)))}
	}
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoke(sent(ctx, t.Propagator), method, req, reply, conn, opts...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return streamer(sent(ctx, t.Propagator), desc, conn, method, opts...)
		}),
	}
}

// traceParent is the header of a W3C trace context.
const traceParent = "traceparent"

// received returns ctx with the trace that came with a call, if one did; nil p: it has it already.
func received(ctx context.Context, p propagation.TextMapPropagator) context.Context {
	if p == nil || len(metadata.ValueFromIncomingContext(ctx, traceParent)) == 0 {
		return ctx
	}
	md, _ := metadata.FromIncomingContext(ctx)
	return p.Extract(ctx, carrier(md))
}

// sent returns ctx with its trace, if it has one, in the metadata of the call to come.
func sent(ctx context.Context, p propagation.TextMapPropagator) context.Context {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return ctx
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	md = md.Copy()
	p.Inject(ctx, carrier(md))
	return metadata.NewOutgoingContext(ctx, md)
}

// carrier lets a propagator read and write metadata.
type carrier metadata.MD

// Get implements propagation.TextMapCarrier.
func (c carrier) Get(key string) string {
	if values := metadata.MD(c).Get(key); len(values) > 0 {
		return values[0]
	}
	return ""
}

// Set implements propagation.TextMapCarrier.
func (c carrier) Set(key, value string) { metadata.MD(c).Set(key, value) }

// Keys implements propagation.TextMapCarrier.
func (c carrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for key := range c {
		keys = append(keys, key)
	}
	return keys
}
