package forward

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/fault"
)

// A call to another datacenter ends after crossTimeout, plus what the request itself asks to wait.
const (
	crossTimeout = 5 * time.Second
	crossTries   = 3
	maxWait      = 11 * time.Minute
	// crossPatience is how long a datacenter may be away before nobody waits for it any more, and
	// awayRetry when to ask again then.
	crossPatience = 2 * time.Second
	awayRetry     = 5 * time.Second
)

var errCrossTimeout = errors.New("no answer in time")

// toDatacenter passes a call on to another datacenter.
func (r *Router) toDatacenter(ctx context.Context, c call, target string) (any, error) {
	conn, err := r.Connections.Datacenter(target)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, crossTimeout+wait(c.req), errCrossTimeout)
	defer cancel()
	reply := c.route.Reply()
	own := r.Directory.Datacenter()
	pause := backoff.New(50*time.Millisecond, 500*time.Millisecond)
	sent := false
	tries := crossTries
	if r.away.since(target) > crossPatience {
		tries = 1 // It has been tried; this try finds out whether it is back.
	}
	for try := 1; ; try++ {
		// gRPC names the peer once a call has a connection to go out on; before that nothing has
		// left.
		var reached peer.Peer
		err = conn.Invoke(outgoing(ctx, hops{datacenter: own, named: c.hops.named, lineage: r.Directory.LineageOf(target)}), c.method, c.req, reply, grpc.Peer(&reached))
		bare := fault.CodeOf(err) == fault.Unavailable && fault.ReasonOf(err) == ""
		sent = sent || reached.Addr != nil && err != nil && (bare || late(ctx))
		if err == nil || !bare || try == tries || pause.Wait(ctx) != nil {
			break
		}
	}
	r.Metrics.crossed(own, target, r.serviceOf(c, reply, err), time.Since(start))
	r.away.note(target, fault.CodeOf(err) == fault.Unavailable && fault.ReasonOf(err) == "" || late(ctx))
	if err != nil {
		return nil, c.honestFrom(target, r.farError(ctx, target, err), sent)
	}
	return reply, nil
}

// honestFrom returns the error of a call to another datacenter: of a write that may have left, no
// refusal can say that nothing was done.
func (c call) honestFrom(target string, err error, sent bool) error {
	if !sent || c.route.Kind != Write && c.route.Kind != Proposal {
		return err
	}
	switch fault.CodeOf(err) {
	case fault.Unavailable, fault.ResourceExhausted:
		return fault.New(fault.Unknown, fault.ReasonOutcomeUnknown, "the write was sent to datacenter %s, its outcome is not known", target).
			WithMeta("datacenter", target).WithRemedy("repeat it with the same request id (--request-id), or look whether it was done").Wrap(err)
	}
	return err
}

// late reports whether a call ended because another datacenter took too long.
func late(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errCrossTimeout) }

// farError names the datacenter when the way to it failed; what it answered itself passes through.
func (r *Router) farError(ctx context.Context, target string, err error) error {
	if !late(ctx) && (fault.CodeOf(err) != fault.Unavailable || fault.ReasonOf(err) != "") {
		return err
	}
	how, retry := "did not answer", time.Second
	if away := r.away.since(target); away > crossPatience {
		// Whoever would try again for a few seconds had better know at once.
		how, retry = "has not answered for "+away.Round(time.Second).String(), awayRetry
	}
	return fault.New(fault.Unavailable, ReasonDatacenterUnreachable, "datacenter %s %s", target, how).
		WithMeta("datacenter", target).WithRetryAfter(retry).
		WithRemedy("look at `konsulctl datacenter list`; gateways must reach each other on port 8443").Wrap(err)
}

// Stream returns a connection to another datacenter and the context for a stream over it.
func (r *Router) Stream(ctx context.Context, target string) (grpc.ClientConnInterface, context.Context, error) {
	if from := hopsOf(ctx).datacenter; from != "" {
		return nil, nil, loop(from, r.Directory.Datacenter(), target)
	}
	conn, err := r.Connections.Datacenter(target)
	if err != nil {
		return nil, nil, err
	}
	return conn, outgoing(ctx, hops{datacenter: r.Directory.Datacenter(), lineage: r.Directory.LineageOf(target)}), nil
}

// Leading returns the connection for a stream that only the leader answers and the context for it,
// and a nil connection when this server leads. It waits through an election.
func (r *Router) Leading(ctx context.Context) (grpc.ClientConnInterface, context.Context, error) {
	deadline := time.Now().Add(r.patience)
	pause := backoff.New(10*time.Millisecond, 100*time.Millisecond)
	h := hopsOf(ctx)
	for {
		err := r.Leadership.CheckLeader()
		if err == nil {
			return nil, ctx, nil
		}
		if leader := r.Leadership.LeaderID(); leader != "" && leader != r.ServerID && h.server == "" {
			conn, err := r.Connections.Server(leader)
			return conn, outgoing(ctx, hops{datacenter: h.datacenter, server: r.ServerID}), err
		}
		if h.server != "" || pause.Wait(ctx) != nil {
			return nil, nil, err
		}
		if time.Now().After(deadline) {
			return nil, nil, r.leaderless(err)
		}
	}
}

// FarError is the error of a stream to another datacenter as the caller gets it.
func (r *Router) FarError(ctx context.Context, target string, err error) error {
	return r.farError(ctx, target, err)
}

func wait(req any) time.Duration {
	blocking, ok := req.(interface {
		GetWait() *durationpb.Duration
		GetIndex() uint64
	})
	if !ok || blocking.GetIndex() == 0 {
		return 0
	}
	if blocking.GetWait() == nil {
		return maxWait
	}
	// The far side adds its jitter.
	return min(blocking.GetWait().AsDuration()*17/16, maxWait)
}

// serviceOf returns the metrics' name of what a call asked for.
func (r *Router) serviceOf(c call, reply proto.Message, err error) string {
	if c.route.Subject == nil {
		return c.route.Area
	}
	found := err == nil && c.route.Found != nil && reply.ProtoReflect().Has(c.route.Found)
	return r.Metrics.known(c.route.Subject.Value(c.req), found)
}
