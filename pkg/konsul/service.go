package konsul

import (
	"cmp"
	"context"
	"net"
	"strconv"
	"strings"
	"time"

	failoverrouterv1 "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
)

// RoundTripUnknown is the RoundTrip of a service whose distance nobody has measured.
const RoundTripUnknown time.Duration = -1

// ReasonNoDatacenter is the reason of the Unavailable fault when none of the datacenters asked
// could answer.
const ReasonNoDatacenter = "NO_DATACENTER_ANSWERED"

// Service is an instance of a service, and where it was found.
type Service struct {
	Name string
	// ID is unique in the datacenter.
	ID string
	// Address is a host or IP.
	Address    string
	Port       int
	Tags       []string
	Meta       map[string]string
	Datacenter string
	Status     Status
	// Unchecked says that nobody watches over it: no check, and no heartbeats of its node.
	Unchecked bool
	Weights   Weights
	// RoundTrip to the datacenter: zero in the own, RoundTripUnknown until it is measured.
	RoundTrip time.Duration
	Node      string
	// Reason says why the instance is in the answer: "local", "datacenter", "failover", "policy" or
	// "nearest".
	Reason string
}

// Endpoint returns "address:port", ready to dial.
func (s *Service) Endpoint() string { return net.JoinHostPort(s.Address, strconv.Itoa(s.Port)) }

// QueryOptions says where to look for a service. The zero value: healthy instances in the client's
// datacenter.
type QueryOptions struct {
	// Datacenter to look in; Local is that of the gateway asked.
	Datacenter string
	// AllDatacenters looks in every datacenter and returns all that is found.
	AllDatacenters bool
	// PreferLocal puts the own datacenter's instances first. With AllDatacenters.
	PreferLocal bool
	// SortByLatency puts the nearest datacenter's instances first. With AllDatacenters.
	SortByLatency bool
	// Failover names datacenters to try in this order when the first has no healthy instance.
	Failover []string
	// Tags keeps only instances that carry all of these.
	Tags []string
	// IncludeUnhealthy also answers instances that are not passing.
	IncludeUnhealthy bool
	// ReadMode applies to queries of one datacenter.
	ReadMode ReadMode
	// AtIndex, if not 0, answers the catalogue as of this index, inside the registry's retention
	// window; in queries of one datacenter.
	AtIndex uint64
	// Statuses, Meta, NodeMeta and Filter select further, in queries of one datacenter: instances
	// in one of these statuses (IncludeUnhealthy is implied), with this meta, on nodes with this
	// meta, and that match an expression such as `Service.Meta.version != "1"`.
	Statuses       []Status
	Meta, NodeMeta map[string]string
	Filter         string
}

// narrows says that the options select what only queries of one datacenter can.
func (o *QueryOptions) narrows() bool {
	return len(o.Statuses) > 0 || len(o.Meta) > 0 || len(o.NodeMeta) > 0 || o.Filter != "" || o.AtIndex != 0
}

// ServiceClient discovers and registers services.
type ServiceClient struct {
	api API
	cfg Config
}

// Get returns the instances of a service, best first. A service nobody registered has none; that is
// no error. When several datacenters are asked, those that cannot answer are left out; it is an
// Unavailable fault with ReasonNoDatacenter only when none of them can.
func (c *ServiceClient) Get(ctx context.Context, name string, opts *QueryOptions) ([]*Service, error) {
	if opts == nil {
		opts = &QueryOptions{}
	}
	if opts.AllDatacenters || len(opts.Failover) > 0 {
		if opts.narrows() {
			return nil, invalid("AllDatacenters", "and Failover select by health and tags alone; Statuses, Meta, NodeMeta, Filter and AtIndex are for one datacenter")
		}
		return c.resolve(ctx, name, opts)
	}
	statuses, err := statusesOf(opts.Statuses)
	if err != nil {
		return nil, err
	}
	datacenter := c.cfg.datacenter(opts.Datacenter)
	answer, err := c.api.Catalog.QueryService(ctx, &registryv1.QueryServiceRequest{
		Service: name, Datacenter: datacenter, ReadMode: opts.ReadMode.proto(),
		PassingOnly: !opts.IncludeUnhealthy && len(statuses) == 0, Tags: opts.Tags,
		Statuses: statuses, Meta: opts.Meta, NodeMeta: opts.NodeMeta, Filter: opts.Filter, AtIndex: opts.AtIndex,
	})
	if err != nil {
		return nil, err
	}
	services := make([]*Service, len(answer.GetInstances()))
	for i, instance := range answer.GetInstances() {
		service := serviceFrom(instance)
		service.Datacenter = cmp.Or(service.Datacenter, answer.GetMeta().GetDatacenter())
		service.Reason, service.RoundTrip = "local", 0
		if datacenter != "" {
			service.Reason, service.RoundTrip = "datacenter", RoundTripUnknown
		}
		services[i] = service
	}
	return services, nil
}

func (c *ServiceClient) resolve(ctx context.Context, name string, opts *QueryOptions) ([]*Service, error) {
	answer, err := c.api.Router.Resolve(ctx, &failoverrouterv1.ResolveRequest{
		Service: name, Datacenter: c.cfg.datacenter(opts.Datacenter),
		AllDatacenters: opts.AllDatacenters, PreferLocal: opts.PreferLocal, SortByLatency: opts.SortByLatency,
		Failover: opts.Failover, IncludeUnhealthy: opts.IncludeUnhealthy, Tags: opts.Tags,
	})
	if err != nil {
		return nil, err
	}
	if err := Unanswered(answer); err != nil {
		return nil, err
	}
	services := make([]*Service, len(answer.GetEndpoints()))
	for i, endpoint := range answer.GetEndpoints() {
		service := serviceFrom(endpoint.GetInstance())
		service.Datacenter = cmp.Or(endpoint.GetDatacenter(), service.Datacenter)
		service.Reason, service.RoundTrip = endpoint.GetReason(), RoundTripUnknown
		if endpoint.GetRoundTrip() != nil {
			service.RoundTrip = endpoint.GetRoundTrip().AsDuration()
		}
		services[i] = service
	}
	return services, nil
}

// Unanswered returns the fault that Get answers when none of the datacenters asked could be
// reached, nil when one could.
func Unanswered(answer *failoverrouterv1.ResolveResponse) error {
	var failures []string
	for _, outcome := range answer.GetDatacenters() {
		if outcome.GetError() == "" {
			return nil
		}
		failures = append(failures, outcome.GetDatacenter()+": "+outcome.GetError())
	}
	if len(failures) == 0 || len(answer.GetEndpoints()) > 0 {
		return nil
	}
	return fault.New(fault.Unavailable, ReasonNoDatacenter, "no datacenter could be asked (%s)", strings.Join(failures, "; ")).
		WithRemedy("look at `konsulctl datacenter list`")
}

// ServiceSummary is one name in the catalogue.
type ServiceSummary struct {
	Name string
	// Tags of any of its instances.
	Tags      []string
	Instances int
	Passing   int
}

// ListOptions says which datacenter's catalogue to list.
type ListOptions struct {
	Datacenter string
	ReadMode   ReadMode
}

// List returns the names in a datacenter's catalogue. opts may be nil.
func (c *ServiceClient) List(ctx context.Context, opts *ListOptions) ([]*ServiceSummary, error) {
	if opts == nil {
		opts = &ListOptions{}
	}
	answer, err := c.api.Catalog.ListServices(ctx, &registryv1.ListServicesRequest{
		Datacenter: c.cfg.datacenter(opts.Datacenter), ReadMode: opts.ReadMode.proto(),
	})
	if err != nil {
		return nil, err
	}
	summaries := make([]*ServiceSummary, len(answer.GetServices()))
	for i, s := range answer.GetServices() {
		summaries[i] = &ServiceSummary{Name: s.GetName(), Tags: s.GetTags(), Instances: int(s.GetInstances()), Passing: int(s.GetPassing())}
	}
	return summaries, nil
}

func serviceFrom(instance *registryv1.ServiceInstance) *Service {
	s := instance.GetService()
	weights := Weights{Passing: 1, Warning: 1}
	if w := s.GetWeights(); w != nil {
		weights = Weights{Passing: w.GetPassing(), Warning: w.GetWarning()}
	}
	return &Service{
		Weights: weights,
		Name:    s.GetName(), ID: s.GetId(), Port: int(s.GetPort()), Tags: s.GetTags(), Meta: s.GetMeta(),
		Address:    cmp.Or(s.GetAddress(), instance.GetNode().GetAddress()),
		Datacenter: instance.GetDatacenter(), Status: statusFrom(instance.GetStatus()), Unchecked: instance.GetUnchecked(),
		Node: cmp.Or(s.GetNode(), instance.GetNode().GetName()),
	}
}
