package forward

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
	"konsul.dev/pkg/wire"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// relayTrips is how many batches of calls may be on their way to the leader at once.
const relayTrips = 4

// relayed is a call on its way to the leader with others, and whoever waits for its outcome.
type relayed struct {
	*registryv1.RelayedCall
	reply chan relayOutcome
}

type relayOutcome struct {
	response rpc.Encoded
	err      error
}

func (c relayed) weight() int { return len(c.GetRequest()) }

// sharedFields are the numbers of what a server reads in a request that it does not decode.
type sharedFields struct{ requestID, datacenter protowire.Number }

// shared answers the methods whose calls travel together.
func (r Routes) shared() map[string]sharedFields {
	out := map[string]sharedFields{}
	for name, route := range r {
		if route.Shared {
			out[name] = fieldsOf(name)
		}
	}
	return out
}

// fieldsOf finds the fields in a method's request. It panics for one that has none, which is a mistake in the table of routes.
func fieldsOf(fullMethod string) sharedFields {
	name := protoreflect.FullName(strings.ReplaceAll(fullMethod[1:], "/", "."))
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		panic(fmt.Sprintf("route of %s: %v", fullMethod, err))
	}
	fields := found.(protoreflect.MethodDescriptor).Input().Fields() //nolint:forcetypeassert // methods have such names
	return sharedFields{requestID: fields.ByName("request_id").Number(), datacenter: fields.ByName("datacenter").Number()}
}

// read answers the request id and the datacenter of an encoded request; the last of each counts.
func (f sharedFields) read(request []byte) (requestID, datacenter string, err error) {
	for len(request) > 0 {
		field, n := wire.Next(request)
		if n < 0 {
			return "", "", protowire.ParseError(n)
		}
		switch {
		case field.Content == nil:
		case field.Number == f.requestID:
			requestID = string(field.Content)
		case field.Number == f.datacenter:
			datacenter = string(field.Content)
		}
		request = request[n:]
	}
	return requestID, datacenter, nil
}

// Relays implements rpc.Relay.
func (r *Router) Relays(fullMethod string) bool {
	_, ok := r.shared[fullMethod]
	return ok
}

// Relay implements rpc.Relay: a call that its leader answers goes there as it came, together with others, and is checked there.
func (r *Router) Relay(ctx context.Context, fullMethod string, request rpc.Encoded, here func(context.Context, rpc.Encoded) (any, error)) (any, error) {
	if err := r.meant(ctx); err != nil {
		return nil, err
	}
	h := hopsOf(ctx)
	if h.server != "" || r.Leadership.CheckLeader() == nil {
		return here(ctx, request)
	}
	fields := r.shared[fullMethod]
	requestID, datacenter, err := fields.read(request)
	if err != nil || datacenter != "" && datacenter != Own && datacenter != r.Directory.Datacenter() {
		return here(ctx, request)
	}
	if requestID == "" {
		request = protowire.AppendString(protowire.AppendTag(request, fields.requestID, protowire.BytesType), r.NewID())
		h.named = true
	}
	return r.onLeader(ctx, call{
		route: r.Routes[fullMethod], method: fullMethod, encoded: request, hops: h,
		handler: func(ctx context.Context, _ any) (any, error) { return here(ctx, request) },
	})
}

// relay brings a call to the leader together with others.
func (r *Router) relay(ctx context.Context, c call, leader string) (any, error) {
	out := outgoing(ctx, hops{datacenter: c.hops.datacenter, server: r.ServerID, named: c.hops.named})
	mine := relayed{
		RelayedCall: &registryv1.RelayedCall{Method: c.method, Request: c.encoded, Metadata: rpc.Carried(out, r.Propagator)},
		reply:       make(chan relayOutcome, 1),
	}
	if deadline, ok := ctx.Deadline(); ok {
		mine.TimeoutMs = uint64(max(1, time.Until(deadline).Milliseconds())) //nolint:gosec // not negative
	}
	if !r.queuesTo(leader).calls.Add(mine) {
		return nil, queueFull()
	}
	select {
	case outcome := <-mine.reply:
		if fault.CodeOf(outcome.err) == fault.Unimplemented && r.lines.lonely(leader) {
			return r.toLeader(ctx, c, leader)
		}
		return outcome.response, outcome.err
	case <-ctx.Done():
		return nil, unknown(context.Cause(ctx))
	}
}

// carryCalls brings a batch of calls to the leader and their outcomes back.
func (r *Router) carryCalls(leader string, batch []relayed) {
	req := &registryv1.RelayRequest{Calls: make([]*registryv1.RelayedCall, len(batch))}
	for i, c := range batch {
		req.Calls[i] = c.RelayedCall
	}
	answer, err := r.ask(leader, &registryv1.AskRequest{Question: &registryv1.AskRequest_Relay{Relay: req}})
	outcomes := answer.GetRelay().GetOutcomes()
	if err == nil && len(outcomes) != len(batch) {
		err = fault.New(fault.Unknown, fault.ReasonOutcomeUnknown, "the leader answered %d of %d calls", len(outcomes), len(batch))
	}
	for i, c := range batch {
		outcome := relayOutcome{err: err}
		if err == nil {
			outcome.response = outcomes[i].GetResponse()
			if st := outcomes[i].GetStatus(); st != nil {
				outcome.err = rpc.FromStatus(status.ErrorProto(st))
			}
		}
		c.reply <- outcome
	}
}
