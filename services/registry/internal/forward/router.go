package forward

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/coalesce"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/requestid"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/readlease"
)

// Reasons of calls that could not be brought to where they belong.
const (
	// ReasonUnknownDatacenter says that no datacenter of that name is in the federation.
	ReasonUnknownDatacenter = "UNKNOWN_DATACENTER"
	// ReasonDatacenterUnreachable says that another datacenter did not answer.
	ReasonDatacenterUnreachable = "DATACENTER_UNREACHABLE"
	// ReasonForwardingLoop says that two datacenters each believe the other one should answer.
	ReasonForwardingLoop = "FORWARDING_LOOP"
	// ReasonQueueFull says that too many writes wait for the leader.
	ReasonQueueFull = "LEADER_QUEUE_FULL"
	// ReasonCommandTooLarge says that a request would change more, or weigh more, than one commit
	// may.
	ReasonCommandTooLarge = "COMMAND_TOO_LARGE"
)

// Own is the name by which a request may call the asked datacenter.
const Own = "local"

// Leadership is what the router asks of its own server.
type Leadership interface {
	// CheckLeader reports whether this server believes that it leads, and asks nobody. EnsureLease
	// returns nil while it holds the leader lease, VerifyLeader once a majority confirmed it.
	CheckLeader() error
	EnsureLease(ctx context.Context) error
	VerifyLeader(ctx context.Context) error
	// LeaderID is empty when no leader is known.
	LeaderID() string
	// Term is the latest term this server knows of.
	Term() uint64
	ProposeAll(ctx context.Context, proposals []fsm.Proposal) []fsm.Outcome
}

// Directory knows the datacenters.
type Directory interface {
	Datacenter() string
	Primary() string
	Known() []string
	// LineageOf returns the history by which a datacenter's registry is known; empty: not known.
	LineageOf(datacenter string) string
	// CheckLineage refuses what is meant for another registry of the own datacenter's name.
	CheckLineage(meant string) error
}

// Connections are ways to other servers. Calls on them return faults.
type Connections interface {
	Server(id string) (grpc.ClientConnInterface, error)
	Datacenter(name string) (grpc.ClientConnInterface, error)
}

// Params is what a router is made of.
type Params struct {
	ServerID    string
	Routes      Routes
	Leadership  Leadership
	Directory   Directory
	Connections Connections
	Metrics     *Metrics
	Log         *slog.Logger
	NewID       func() string
	// Admit refuses commands of a version that a member does not understand; so does the leader,
	// unless it is the one.
	Admit func(version uint32) error
	// Published returns the index up to which this server's state is there for readers.
	Published func() uint64
	// MaxInFlight bounds the writes that wait for a leader elsewhere.
	MaxInFlight int
	// MaxInFlightBytes bounds what they weigh together.
	MaxInFlightBytes int
}

// Router brings calls to the server that may answer them. Safe for concurrent use.
type Router struct {
	Params
	// patience is leaderWait.
	patience time.Duration
	flights  flights
	away     *away
	// leased and verified are the questions for a read index, by what the leader must do before it
	// answers.
	leased, verified coalesce.Rounds[uint64]
	// reads holds the lease under which default reads need no question.
	reads *readlease.Holder

	mu sync.Mutex
	// queues are the proposals that wait to go to a leader, by server.
	queues map[string]*coalesce.Queue[proposal]

	// told is when the log last said that calls are meant for another registry.
	told atomic.Int64
}

// tellEvery is how often the log says what every call of another datacenter runs into.
const tellEvery = time.Minute

// leaderWait is how long a call waits for a leader: longer than an election, shorter than a
// caller's patience.
const leaderWait = 5 * time.Second

// New returns a router; its Run must run.
func New(p Params) *Router {
	return &Router{Params: p, patience: leaderWait, flights: newFlights(), away: newAway(), reads: readlease.NewHolder(readlease.Monotonic()), queues: map[string]*coalesce.Queue[proposal]{}}
}

// Unary is the router as an interceptor. It goes behind the one that admits callers. The error of a
// write whose outcome is not known has the request id.
func (r *Router) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := r.bring(ctx, req, info, handler)
	return resp, requestid.Explain(err, fsm.RequestIDOf(req))
}

// bring brings a call to where it belongs.
func (r *Router) bring(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	behind := hopsOf(ctx)
	if err := r.meant(behind); err != nil {
		return nil, err
	}
	route, ok := r.Routes[info.FullMethod]
	message, isMessage := req.(proto.Message)
	if !ok || !isMessage {
		return handler(ctx, req)
	}
	if route.KindOf != nil {
		route.Kind = route.KindOf(message)
	}
	c := call{route: route, method: info.FullMethod, req: message, hops: behind, handler: handler}
	if route.Kind == Write || route.Kind == Proposal {
		given := fsm.RequestIDOf(req)
		c.hops.named = c.hops.named || given == ""
		if !c.hops.named && !route.Undigested {
			ctx = asking(ctx, given, req)
		}
		ensureRequestID(message, r.NewID)
	}
	target, err := r.target(ctx, c)
	if err != nil {
		return nil, err
	}
	if target != r.Directory.Datacenter() {
		return r.toDatacenter(ctx, c, target)
	}
	if route.Kind == Anywhere || route.Kind == Proposal || route.Kind == Read && readMode(req) == registryv1.ReadMode_READ_MODE_STALE {
		return handler(ctx, req)
	}
	return r.onLeader(ctx, c)
}

// Streamed is what Unary is to calls, as far as it goes: a stream that is meant for another
// registry of this datacenter's name is refused.
func (r *Router) Streamed(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := r.meant(hopsOf(stream.Context())); err != nil {
		return err
	}
	return handler(srv, stream)
}

// meant refuses a call of another datacenter that is meant for another registry of this one's name.
func (r *Router) meant(h hops) error {
	err := r.Directory.CheckLineage(h.lineage)
	if err == nil {
		return nil
	}
	r.Metrics.otherLineage.Inc()
	if now := time.Now(); now.Sub(time.Unix(0, r.told.Load())) >= tellEvery {
		r.told.Store(now.UnixNano())
		r.Log.Error("a call from another datacenter is meant for another registry of this datacenter's name",
			obs.KeySourceDC, h.datacenter, obs.KeyError, err)
	}
	return err
}

// call is one request on its way.
type call struct {
	route   Route
	method  string
	req     proto.Message
	hops    hops
	handler grpc.UnaryHandler
}

// target returns the datacenter a call belongs to.
func (r *Router) target(ctx context.Context, c call) (string, error) {
	own := r.Directory.Datacenter()
	if c.route.Primary != nil && c.route.Primary(ctx, c.req) {
		primary := r.Directory.Primary()
		if primary != own && c.hops.datacenter != "" {
			return "", loop(c.hops.datacenter, own, primary)
		}
		return primary, nil
	}
	name, err := r.Resolve(requestedDatacenter(c.req))
	if err != nil {
		return "", err
	}
	if name != own && c.hops.datacenter != "" {
		return "", loop(c.hops.datacenter, own, name)
	}
	return name, nil
}

func loop(from, own, next string) error {
	return fault.New(fault.FailedPrecondition, ReasonForwardingLoop, "%s sent to %s what %s believes belongs to %s", from, own, own, next).
		WithRemedy("the datacenters disagree who is primary; look at `konsulctl cluster status --all-datacenters`")
}

// Resolve returns which datacenter a request means, or a fault that names the known ones.
func (r *Router) Resolve(name string) (string, error) {
	own := r.Directory.Datacenter()
	if name == "" || name == Own || name == own {
		return own, nil
	}
	known := r.Directory.Known()
	for _, k := range known {
		if k == name {
			return name, nil
		}
	}
	return "", fault.New(fault.NotFound, ReasonUnknownDatacenter, "there is no datacenter %q in this federation", name).
		WithField("datacenter").WithMeta("known", strings.Join(known, ",")).WithRemedy("use one of " + strings.Join(known, ", "))
}

// onLeader carries a call out here if this server leads, else where the leader is. It waits through
// an election.
func (r *Router) onLeader(ctx context.Context, c call) (any, error) {
	deadline := time.Now().Add(r.patience)
	pause := backoff.New(10*time.Millisecond, 100*time.Millisecond)
	sent := false
	for {
		if c.route.Leader != nil {
			c.route.Leader.Fill(c.req, r.Leadership.LeaderID())
		}
		resp, err := r.once(ctx, c)
		sent = sent || err != nil && unsure(err)
		if err == nil || ctx.Err() != nil || c.hops.server != "" || !repeatable(err) {
			return resp, c.honest(err, sent)
		}
		if time.Now().After(deadline) {
			return resp, c.honest(r.leaderless(err), sent)
		}
		if pause.Wait(ctx) != nil {
			return nil, c.honest(err, sent)
		}
	}
}

// leaderless returns the error of a call that has waited for a leader in vain: of the datacenter,
// since no other server can help.
func (r *Router) leaderless(err error) error {
	if fault.ReasonOf(err) != fault.ReasonNoLeader {
		return err
	}
	return fault.New(fault.Unavailable, fault.ReasonNoLeader, "datacenter %s has had no leader for %s", r.Directory.Datacenter(), r.patience).
		WithRetryAfter(time.Second).WithMeta("datacenter", r.Directory.Datacenter()).
		WithRemedy("`konsulctl cluster status` shows which servers are up: more than half of them must be, and reach each other").Wrap(err)
}

func (c call) honest(err error, sent bool) error {
	if c.route.Kind != Write {
		return err
	}
	return honest(err, sent)
}

// unsure reports whether a write that failed so may have been done all the same.
func unsure(err error) bool {
	return fault.CodeOf(err) == fault.Unknown || errors.Is(err, errLeaderMoved) ||
		fault.CodeOf(err) == fault.Unavailable && fault.ReasonOf(err) == ""
}

// honest returns the error of a write: a refusal says that nothing was done, which a refused
// repetition cannot say of the tries before it.
func honest(err error, sent bool) error {
	if err == nil || !sent {
		return err
	}
	switch fault.CodeOf(err) {
	case fault.Unavailable, fault.ResourceExhausted:
		return unknown(err)
	}
	return err
}

// unknown returns the error of a write that may or may not have been done.
func unknown(cause error) error {
	return fault.New(fault.Unknown, fault.ReasonOutcomeUnknown, "the write was proposed, its outcome is not known").
		WithRemedy("repeat it with the same request id (--request-id), or look whether it was done").Wrap(cause)
}

func (r *Router) once(ctx context.Context, c call) (any, error) {
	err := r.Leadership.CheckLeader()
	if err == nil && c.route.Kind == Read {
		confirm := r.Leadership.EnsureLease
		if readMode(c.req) == registryv1.ReadMode_READ_MODE_LINEARIZABLE {
			confirm = r.Leadership.VerifyLeader
		}
		err = confirm(ctx)
	}
	if err == nil {
		return c.handler(ctx, c.req)
	}
	leader := r.Leadership.LeaderID()
	if leader == "" || leader == r.ServerID || c.hops.server != "" {
		return nil, err
	}
	if c.route.Kind == Read && !blocks(c.req) {
		index, err := r.readIndex(ctx, readMode(c.req) == registryv1.ReadMode_READ_MODE_LINEARIZABLE)
		if err != nil {
			return nil, err
		}
		// What is not here yet is faster at the leader's than waited for: commits reach followers
		// with the next entry.
		if r.Published() >= index {
			return c.handler(ctx, c.req)
		}
	}
	return r.toLeader(ctx, c, leader)
}

// blocks reports whether a read waits for a change.
func blocks(req any) bool {
	blocking, ok := req.(interface{ GetIndex() uint64 })
	return ok && blocking.GetIndex() > 0
}

// repeatable reports whether trying again can help and cannot harm: nothing was done, or the
// request id sees to it that it is done once. A bare Unavailable comes from the network.
func repeatable(err error) bool {
	switch fault.CodeOf(err) {
	case fault.Unavailable:
		reason := fault.ReasonOf(err)
		return reason == fault.ReasonNoLeader || reason == ""
	case fault.Unknown:
		return fault.ReasonOf(err) == fault.ReasonOutcomeUnknown
	}
	return errors.Is(err, errLeaderMoved)
}

func (r *Router) toLeader(ctx context.Context, c call, leader string) (any, error) {
	conn, err := r.Connections.Server(leader)
	if err != nil {
		return nil, err
	}
	ctx, end := r.flights.begin(ctx, leader)
	defer end()
	out := outgoing(ctx, hops{datacenter: c.hops.datacenter, server: r.ServerID, named: c.hops.named})
	reply := c.route.Reply()
	if err = conn.Invoke(out, c.method, c.req, reply); err == nil {
		return reply, nil
	}
	if cause := context.Cause(ctx); errors.Is(cause, errLeaderMoved) {
		return nil, errLeaderMoved
	}
	return nil, err
}

// ensureRequestID gives a write an id, so that it can be repeated.
func ensureRequestID(req proto.Message, newID func() string) {
	if fsm.RequestIDOf(req) != "" {
		return
	}
	reflected := req.ProtoReflect()
	field := reflected.Descriptor().Fields().ByName("request_id")
	if field != nil && field.Kind() == protoreflect.StringKind && reflected.Get(field).String() == "" {
		reflected.Set(field, protoreflect.ValueOfString(newID()))
	}
}
