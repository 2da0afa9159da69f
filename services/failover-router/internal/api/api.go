// Package api is the failover-router's gRPC face. It converts and decides nothing. Safe for
// concurrent use.
package api

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	failoverrouterv1 "konsul.dev/proto/gen/konsul/failoverrouter/v1"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
	"konsul.dev/services/failover-router/internal/resolve"
	"konsul.dev/services/failover-router/internal/verdict"
)

const (
	// watchEvery is how often a watched answer is made anew when nothing else asks for it.
	watchEvery = time.Second
	maxName    = 128
)

// ReasonStopping is the reason of a stream that ends because this server stops.
const ReasonStopping = "STOPPING"

// Resolver returns requests.
type Resolver interface {
	// Resolve fails only if the request is malformed or ctx ends.
	Resolve(ctx context.Context, req verdict.Request, o resolve.Options) (resolve.Result, error)
}

// Params is what a server is made of.
type Params struct {
	Resolver Resolver
	Topology resolve.Topology
	// CacheTTL is how old an answer about another datacenter may be.
	CacheTTL time.Duration
	// Stopping ends all streams when it is closed.
	Stopping <-chan struct{}
}

// Server implements RouterService.
type Server struct {
	failoverrouterv1.UnimplementedRouterServiceServer

	p Params
}

// New returns a server.
func New(p Params) *Server { return &Server{p: p} }

// Resolve implements RouterService.
func (s *Server) Resolve(ctx context.Context, in *failoverrouterv1.ResolveRequest) (*failoverrouterv1.ResolveResponse, error) {
	req, err := parse(in)
	if err != nil {
		return nil, err
	}
	result, err := s.p.Resolver.Resolve(ctx, req, resolve.Options{RemoteAge: s.p.CacheTTL})
	if err != nil {
		return nil, err
	}
	return convert(result), nil
}

// WatchResolve implements RouterService.
func (s *Server) WatchResolve(in *failoverrouterv1.WatchResolveRequest, stream failoverrouterv1.RouterService_WatchResolveServer) error {
	if in.GetRequest() == nil {
		return fault.Invalid("request", "is missing")
	}
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	var last *failoverrouterv1.ResolveResponse
	for {
		_, changed := s.p.Topology.Current()
		next, err := s.Resolve(stream.Context(), in.GetRequest())
		if err != nil {
			return err
		}
		if last == nil || !same(last, next) {
			if err := stream.Send(&failoverrouterv1.WatchResolveResponse{Response: next}); err != nil {
				return err
			}
			last = next
		}
		select {
		case <-ticker.C:
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-s.p.Stopping:
			return errStopping()
		}
	}
}

// same reports whether two answers differ in nothing but measured distances.
func same(a, b *failoverrouterv1.ResolveResponse) bool {
	return proto.Equal(withoutRoundTrips(a), withoutRoundTrips(b))
}

func withoutRoundTrips(r *failoverrouterv1.ResolveResponse) *failoverrouterv1.ResolveResponse {
	plain := &failoverrouterv1.ResolveResponse{Datacenters: r.GetDatacenters(), FailedOver: r.GetFailedOver()}
	for _, e := range r.GetEndpoints() {
		plain.Endpoints = append(plain.Endpoints, &failoverrouterv1.Endpoint{
			Instance: e.GetInstance(), Datacenter: e.GetDatacenter(), Reason: e.GetReason(),
		})
	}
	return plain
}

func parse(in *failoverrouterv1.ResolveRequest) (verdict.Request, error) {
	if name := in.GetService(); name == "" || len(name) > maxName {
		return verdict.Request{}, fault.Invalid("service", "%q is no service name", name).
			WithRemedy(fmt.Sprintf("name the service, in at most %d characters", maxName))
	}
	if err := datacenter("datacenter", in.GetDatacenter()); err != nil {
		return verdict.Request{}, err
	}
	for i, name := range in.GetFailover() {
		field := fmt.Sprintf("failover[%d]", i)
		if name == "" {
			return verdict.Request{}, fault.Invalid(field, "is empty").WithRemedy("name a datacenter")
		}
		if err := datacenter(field, name); err != nil {
			return verdict.Request{}, err
		}
	}
	return verdict.Request{
		Service: in.GetService(), Datacenter: in.GetDatacenter(), Failover: in.GetFailover(),
		All: in.GetAllDatacenters(), PreferLocal: in.GetPreferLocal(), SortByLatency: in.GetSortByLatency(),
		IncludeUnhealthy: in.GetIncludeUnhealthy(), Tags: in.GetTags(),
	}, nil
}

func datacenter(field, name string) error {
	if name == "" || name == verdict.OwnAlias || config.ValidDatacenter(name) {
		return nil
	}
	return fault.Invalid(field, "%q is no datacenter name", name).WithRemedy("`konsulctl datacenter list` shows the names")
}

func convert(result resolve.Result) *failoverrouterv1.ResolveResponse {
	out := &failoverrouterv1.ResolveResponse{FailedOver: result.FailedOver}
	for _, e := range result.Endpoints {
		endpoint := &failoverrouterv1.Endpoint{Instance: e.Instance, Datacenter: e.Datacenter.Name, Reason: string(e.Reason)}
		if e.Datacenter.Measured {
			endpoint.RoundTrip = durationpb.New(e.Datacenter.RoundTrip)
		}
		out.Endpoints = append(out.Endpoints, endpoint)
	}
	for _, o := range result.Outcomes {
		out.Datacenters = append(out.Datacenters, &failoverrouterv1.DatacenterOutcome{
			Datacenter: o.Datacenter, Endpoints: uint32(o.Endpoints), Error: resolve.Describe(o.Err),
		})
	}
	return out
}

func errStopping() error {
	return fault.New(fault.Unavailable, ReasonStopping, "failover-router is stopping").WithRetryAfter(time.Second)
}
