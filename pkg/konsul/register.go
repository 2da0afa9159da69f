package konsul

import (
	"cmp"
	"context"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
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
	// NodeAddress is the machine's host or IP; empty: Address.
	NodeAddress string
	// Datacenter to register in; empty: the client's.
	Datacenter string
	// Checks replace those the instance has. Without any it counts as passing.
	Checks []Check
}

// Check is the outcome of watching over an instance. Somebody else runs it: an agent, or whoever registers.
type Check struct {
	// ID is unique within the instance.
	ID   string
	Name string
	// Status as last seen; StatusUnknown keeps what an existing check has.
	Status Status
	// Output is what the last run said.
	Output string
}

// Register creates or replaces an instance with its checks, in one commit.
func (c *ServiceClient) Register(ctx context.Context, r *Registration) error {
	if r.Port < 0 || r.Port > 65535 {
		return invalid("Port", "%d is no port", r.Port)
	}
	address := cmp.Or(r.NodeAddress, r.Address)
	if address == "" {
		return invalid("Address", "is missing, and so is NodeAddress")
	}
	node := cmp.Or(r.Node, address)
	request := &registryv1.RegisterRequest{
		Node: &registryv1.Node{Name: node, Address: address},
		Service: &registryv1.Service{
			Id: cmp.Or(r.ID, r.Name), Name: r.Name, Node: node,
			Address: r.Address, Port: uint32(r.Port), Tags: r.Tags, Meta: r.Meta,
		},
		Datacenter: c.cfg.datacenter(r.Datacenter), RequestId: newRequestID(),
	}
	for _, check := range r.Checks {
		status, ok := check.Status.Proto()
		if !ok {
			return invalid("Checks", "check %q: %q is no status", check.ID, check.Status)
		}
		request.Checks = append(request.Checks, &registryv1.Check{
			Id: check.ID, Name: check.Name, ServiceId: request.GetService().GetId(), Status: status, Output: check.Output,
		})
	}
	_, err := c.api.Catalog.Register(ctx, request)
	return err
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
		ServiceId: id, Datacenter: c.cfg.datacenter(opts.Datacenter), RequestId: newRequestID(),
	})
	return err
}

// FailoverPolicy says where callers of a service go when its own datacenter has no healthy instance.
// It holds in the whole federation.
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
		Policy: &registryv1.FailoverPolicy{Service: policy.Service}, RequestId: newRequestID(),
	}
	for _, t := range policy.Failover {
		request.Policy.Failover = append(request.Policy.Failover, &registryv1.FailoverTarget{Datacenter: t.Datacenter, Targets: t.Targets})
	}
	_, err := c.api.Catalog.SetFailoverPolicy(ctx, request)
	return err
}

// GetFailoverPolicy answers a service's failover policy. NotFound when it has none.
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
