package forward

import (
	"context"

	"google.golang.org/grpc/metadata"

	"konsul.dev/pkg/rpc"
)

// Metadata that marks where a call has been.
const (
	hopDatacenter = "konsul-from-datacenter"
	hopServer     = "konsul-from-server"
)

// hops says which hops a call has behind it.
type hops struct{ datacenter, server string }

func hopsOf(ctx context.Context) hops {
	first := func(key string) string {
		if values := metadata.ValueFromIncomingContext(ctx, key); len(values) > 0 {
			return values[0]
		}
		return ""
	}
	return hops{datacenter: first(hopDatacenter), server: first(hopServer)}
}

// outgoing answers a context for passing a call on: the user's token and the marks travel along.
func outgoing(ctx context.Context, h hops) context.Context {
	out := ctx
	if token := rpc.Token(ctx); token != "" {
		out = rpc.WithToken(out, token)
	}
	if h.datacenter != "" {
		out = metadata.AppendToOutgoingContext(out, hopDatacenter, h.datacenter)
	}
	if h.server != "" {
		out = metadata.AppendToOutgoingContext(out, hopServer, h.server)
	}
	return out
}
