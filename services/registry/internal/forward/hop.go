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
	// hopNamed says that the request id was not the caller's: nobody else can use it for something
	// else.
	hopNamed = "konsul-request-named"
	// hopAgentNode is the node whose agent made the call.
	hopAgentNode = "konsul-agent-node"
	// hopLineage is the history of the registry that is meant: another one of the datacenter's name
	// must not answer.
	hopLineage = "konsul-lineage"
)

// hops says which hops a call has behind it.
type hops struct {
	datacenter, server, lineage string
	// named says that a server gave the call its request id.
	named bool
}

// passesOn is the service whose marks count: only registries pass calls on.
const passesOn = "registry"

func hopsOf(ctx context.Context) hops {
	if rpc.CallerFrom(ctx).Peer.Service != passesOn {
		return hops{}
	}
	first := func(key string) string {
		if values := metadata.ValueFromIncomingContext(ctx, key); len(values) > 0 {
			return values[0]
		}
		return ""
	}
	return hops{datacenter: first(hopDatacenter), server: first(hopServer), named: first(hopNamed) != "", lineage: first(hopLineage)}
}

// AgentNode returns the node whose agent made a call, wherever it came in first; empty when it was
// somebody else, or an agent whose certificate names no node.
func AgentNode(ctx context.Context) string {
	caller := rpc.CallerFrom(ctx)
	if caller.Peer.Service != passesOn {
		return caller.Peer.Node
	}
	if values := metadata.ValueFromIncomingContext(ctx, hopAgentNode); len(values) > 0 {
		return values[0]
	}
	return ""
}

// outgoing returns a context for passing a call on: the user's token and the marks travel along.
func outgoing(ctx context.Context, h hops) context.Context {
	out := ctx
	token := rpc.Token(ctx)
	if token == "" && rpc.CallerFrom(ctx).Grant != nil {
		token = rpc.AnonymousToken // Somebody without a token: without one, this server would act as itself.
	}
	if token != "" {
		out = rpc.WithToken(out, token)
	}
	if node := AgentNode(ctx); node != "" {
		out = metadata.AppendToOutgoingContext(out, hopAgentNode, node)
	}
	if h.datacenter != "" {
		out = metadata.AppendToOutgoingContext(out, hopDatacenter, h.datacenter)
	}
	if h.server != "" {
		out = metadata.AppendToOutgoingContext(out, hopServer, h.server)
	}
	if h.lineage != "" {
		out = metadata.AppendToOutgoingContext(out, hopLineage, h.lineage)
	}
	if h.named {
		out = metadata.AppendToOutgoingContext(out, hopNamed, "1")
	}
	return out
}
