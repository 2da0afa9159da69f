package forward

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Reasons of calls that could not be brought to where they belong.
const (
	// ReasonUnknownDatacenter says that no datacenter of that name is in the federation.
	ReasonUnknownDatacenter = "UNKNOWN_DATACENTER"
	// ReasonDatacenterUnreachable says that another datacenter did not answer.
	ReasonDatacenterUnreachable = "DATACENTER_UNREACHABLE"
	// ReasonForwardingLoop says that two datacenters each believe the other one should answer.
	ReasonForwardingLoop = "FORWARDING_LOOP"
)

// Own is the name by which a request may call the asked datacenter.
const Own = "local"

// Leadership is what the router asks of its own server.
type Leadership interface {
	CheckLease() error
	VerifyLease(ctx context.Context) error
	// LeaderID is empty when no leader is known.
	LeaderID() string
}

// Directory knows the datacenters.
type Directory interface {
	Datacenter() string
	Primary() string
	Known() []string
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
}

// Router brings calls to the server that may answer them. Safe for concurrent use.
type Router struct {
	Params
	flights flights
}

// leaderWait is how long a call waits for a leader: longer than an election, shorter than a caller's patience.
const leaderWait = 5 * time.Second

// New answers a router; its Run must run.
func New(p Params) *Router { return &Router{Params: p, flights: newFlights()} }

// Unary is the router as an interceptor. It goes behind the one that admits callers.
func (r *Router) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	route, ok := r.Routes[info.FullMethod]
	if !ok {
		return handler(ctx, req)
	}
	if route.Kind == Write {
		ensureRequestID(req, r.NewID)
	}
	c := call{route: route, method: info.FullMethod, req: req, hops: hopsOf(ctx), handler: handler}
	target, err := r.target(c)
	if err != nil {
		return nil, err
	}
	if target != r.Directory.Datacenter() {
		return r.toDatacenter(ctx, c, target)
	}
	if route.Kind == Anywhere || route.Kind == Read && readMode(req) == registryv1.ReadMode_READ_MODE_STALE {
		return handler(ctx, req)
	}
	return r.onLeader(ctx, c)
}

// call is one request on its way.
type call struct {
	route   Route
	method  string
	req     any
	hops    hops
	handler grpc.UnaryHandler
}

// target answers the datacenter a call belongs to.
func (r *Router) target(c call) (string, error) {
	own := r.Directory.Datacenter()
	if c.route.Primary != nil && c.route.Primary(c.req) {
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

// Resolve answers which datacenter a request means, or a fault that names the known ones.
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

// onLeader answers a call here if this server leads, else where the leader is. It waits through an
// election.
func (r *Router) onLeader(ctx context.Context, c call) (any, error) {
	deadline := time.Now().Add(leaderWait)
	pause := backoff.New(10*time.Millisecond, 100*time.Millisecond)
	for {
		resp, err := r.once(ctx, c)
		if err == nil || ctx.Err() != nil || c.hops.server != "" || !repeatable(err) || time.Now().After(deadline) {
			return resp, err
		}
		if pause.Wait(ctx) != nil {
			return nil, err
		}
	}
}

func (r *Router) once(ctx context.Context, c call) (any, error) {
	err := r.Leadership.CheckLease()
	if err == nil && c.route.Kind == Read && readMode(c.req) == registryv1.ReadMode_READ_MODE_LINEARIZABLE {
		err = r.Leadership.VerifyLease(ctx)
	}
	if err == nil {
		return c.handler(ctx, c.req)
	}
	leader := r.Leadership.LeaderID()
	if leader == "" || leader == r.ServerID || c.hops.server != "" {
		return nil, err
	}
	return r.toLeader(ctx, c, leader)
}

// repeatable says whether trying again can help and cannot harm: nothing was done, or the request id
// sees to it that it is done once. A bare Unavailable comes from the network.
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
	reply := c.route.Reply()
	err = conn.Invoke(outgoing(ctx, hops{datacenter: c.hops.datacenter, server: r.ServerID}), c.method, c.req, reply)
	if err == nil {
		return reply, nil
	}
	if cause := context.Cause(ctx); errors.Is(cause, errLeaderMoved) {
		return nil, errLeaderMoved
	}
	return nil, err
}

// ensureRequestID gives a write an id, so that it can be repeated.
func ensureRequestID(req any, newID func() string) {
	m, ok := req.(proto.Message)
	if !ok {
		return
	}
	reflected := m.ProtoReflect()
	field := reflected.Descriptor().Fields().ByName("request_id")
	if field != nil && field.Kind() == protoreflect.StringKind && reflected.Get(field).String() == "" {
		reflected.Set(field, protoreflect.ValueOfString(newID()))
	}
}
