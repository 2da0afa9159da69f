package konsul

import (
	"cmp"
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/host"
)

// Registration is an instance to put into the catalogue.
type Registration struct {
	Name string
	// ID is unique in the datacenter; empty: Name.
	ID string
	// Address is a host or IP; empty: NodeAddress.
	Address string
	Port    int
	Tags    []string
	Meta    map[string]string
	// Node is the machine it runs on; empty: called by its address.
	Node string
	// NodeAddress is the machine's host or IP; empty: Address, and with a Node that is registered
	// the address that has.
	NodeAddress string
	// Datacenter to register in; empty: the client's.
	Datacenter string
	// Checks replace those the instance has. Without any it counts as passing, and as unchecked.
	Checks []Check
	// Weights are its share of the traffic; nil: 1 while it is passing or warning.
	Weights *Weights
	// Replace takes the instance over when another node, service or owner has its ID, which is
	// AlreadyExists otherwise.
	Replace bool
}

// Weights are an instance's share of the traffic, by its status.
type Weights struct{ Passing, Warning uint32 }

// Check is the outcome of watching over an instance. Somebody else runs it: an agent, or whoever
// registers.
type Check struct {
	// ID is unique within the instance.
	ID   string
	Name string
	// Status as last seen; StatusUnknown keeps what an existing check has.
	Status Status
	// Output is what the last run said.
	Output string
	// TTL makes the check critical when no report came for so long; 0: it keeps its status for
	// ever.
	TTL time.Duration
}

// Register creates or updates an instance with its checks, in one commit. AlreadyExists when
// another node, service or owner has its ID, unless it replaces. The node keeps its meta and
// liveness TTL.
func (c *ServiceClient) Register(ctx context.Context, r *Registration) error {
	address := cmp.Or(r.NodeAddress, r.Address)
	if address == "" && r.Node == "" {
		return invalid("Address", "is missing, and so are NodeAddress and Node")
	}
	node := r.Node
	switch {
	case node == "":
		node = host.NodeName(address)
	case r.NodeAddress == "":
		address = "" // A node that is registered keeps its own.
	}
	service, err := r.service(node)
	if err != nil {
		return err
	}
	_, err = c.api.Catalog.Register(ctx, &registryv1.RegisterRequest{
		Node: &registryv1.Node{Name: node, Address: address}, Service: service.GetService(), Checks: service.GetChecks(),
		Datacenter: c.cfg.datacenter(r.Datacenter), RequestId: requestID(ctx), Replace: r.Replace,
	})
	return err
}

// service returns the instance as a part of a request.
func (r *Registration) service(node string) (*registryv1.ServiceRegistration, error) {
	if r.Port < 0 || r.Port > 65535 {
		return nil, invalid("Port", "%d is no port", r.Port)
	}
	out := &registryv1.ServiceRegistration{Service: &registryv1.Service{
		Id: cmp.Or(r.ID, r.Name), Name: r.Name, Node: node,
		Address: r.Address, Port: uint32(r.Port), Tags: r.Tags, Meta: r.Meta,
	}}
	if r.Weights != nil {
		out.Service.Weights = &registryv1.Weights{Passing: r.Weights.Passing, Warning: r.Weights.Warning}
	}
	var err error
	out.Checks, err = checksOf(r.Checks, out.GetService().GetId())
	return out, err
}

func checksOf(checks []Check, service string) ([]*registryv1.Check, error) {
	var out []*registryv1.Check
	for _, check := range checks {
		status, ok := check.Status.Proto()
		if !ok {
			return nil, invalid("Checks", "check %q: %q is no status", check.ID, check.Status)
		}
		c := &registryv1.Check{Id: check.ID, Name: check.Name, ServiceId: service, Status: status, Output: check.Output}
		if check.TTL != 0 {
			c.Ttl = durationpb.New(check.TTL)
		}
		out = append(out, c)
	}
	return out, nil
}

// WriteOptions says where to write.
type WriteOptions struct {
	// Datacenter; empty: the client's.
	Datacenter string
}

// Deregister removes an instance with its checks. NotFound when it is not there. opts may be nil.
func (c *ServiceClient) Deregister(ctx context.Context, id string, opts *WriteOptions) error {
	if opts == nil {
		opts = &WriteOptions{}
	}
	_, err := c.api.Catalog.Deregister(ctx, &registryv1.DeregisterRequest{
		ServiceId: id, Datacenter: c.cfg.datacenter(opts.Datacenter), RequestId: requestID(ctx),
	})
	return err
}

// FailoverPolicy says where callers of a service go when its own datacenter has no healthy
// instance. It holds in the whole federation.
type FailoverPolicy struct {
	Service string
	// Failover is in order of preference.
	Failover []FailoverTarget
	// ModifyIndex is set by GetFailoverPolicy.
	ModifyIndex uint64
}

// FailoverTarget is one step of a policy.
type FailoverTarget struct {
	Datacenter string
	// Targets caps how many instances are used there; 0: all.
	Targets uint32
}

// SetFailoverPolicy creates or replaces a service's failover policy.
func (c *ServiceClient) SetFailoverPolicy(ctx context.Context, policy *FailoverPolicy) error {
	request := &registryv1.SetFailoverPolicyRequest{
		Policy: &registryv1.FailoverPolicy{Service: policy.Service}, RequestId: requestID(ctx),
	}
	for _, t := range policy.Failover {
		request.Policy.Failover = append(request.Policy.Failover, &registryv1.FailoverTarget{Datacenter: t.Datacenter, Targets: t.Targets})
	}
	_, err := c.api.Catalog.SetFailoverPolicy(ctx, request)
	return err
}

// GetFailoverPolicy returns a service's failover policy. NotFound when it has none.
func (c *ServiceClient) GetFailoverPolicy(ctx context.Context, service string) (*FailoverPolicy, error) {
	answer, err := c.api.Catalog.GetFailoverPolicy(ctx, &registryv1.GetFailoverPolicyRequest{Service: service})
	if err != nil {
		return nil, err
	}
	policy := &FailoverPolicy{Service: answer.GetPolicy().GetService(), ModifyIndex: answer.GetPolicy().GetModifyIndex()}
	for _, t := range answer.GetPolicy().GetFailover() {
		policy.Failover = append(policy.Failover, FailoverTarget{Datacenter: t.GetDatacenter(), Targets: t.GetTargets()})
	}
	return policy, nil
}
