package rpc

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"
)

func TestATraceTravelsThroughAProcessThatExportsNone(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	p := propagation.TraceContext{}
	in := metadata.NewIncomingContext(context.Background(), metadata.Pairs(traceParent, parent))
	ctx := received(in, p)
	require.Equal(t, "0af7651916cd43dd8448eb211c80319c", trace.SpanContextFromContext(ctx).TraceID().String())

	out := sent(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer x"), p)
	md, _ := metadata.FromOutgoingContext(out)
	require.Equal(t, []string{parent}, md.Get(traceParent))
	require.Equal(t, []string{"Bearer x"}, md.Get("authorization"))

	plain := metadata.NewIncomingContext(context.Background(), metadata.Pairs("authorization", "Bearer x"))
	require.Equal(t, plain, received(plain, p), "a call of no trace costs nothing")
	require.Equal(t, plain, sent(plain, p))
}
