package registrar

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/requestid"
	"konsul.dev/services/agent/internal/reconcile"
)

// Client is the datacenter's registry as an agent sees it. Safe for concurrent use.
type Client struct {
	catalog registryv1.CatalogServiceClient
	watch   registryv1.WatchServiceClient
	timeout time.Duration
}

// NewClient returns a client that gives every call at most timeout.
func NewClient(conn grpc.ClientConnInterface, timeout time.Duration) *Client {
	return &Client{
		catalog: registryv1.NewCatalogServiceClient(conn), watch: registryv1.NewWatchServiceClient(conn), timeout: timeout,
	}
}

// Actual reads what the registry says about the desired instances and about what agents of this
// node registered.
func (c *Client) Actual(ctx context.Context, desired reconcile.Desired) (reconcile.Actual, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	node := desired.Node.GetName()
	names, ids := map[string]bool{}, map[string]bool{}
	for _, i := range desired.Instances {
		names[i.Service.GetName()], ids[i.Service.GetId()] = true, true
	}
	rows, err := c.services(ctx)
	if err != nil {
		return reconcile.Actual{}, err
	}
	for _, s := range rows {
		// A desired id may be taken by a service of another name.
		if s.GetNode() == node || ids[s.GetId()] {
			names[s.GetName()] = true
		}
	}
	var actual reconcile.Actual
	for _, name := range slices.Sorted(maps.Keys(names)) {
		resp, err := c.catalog.QueryService(ctx, &registryv1.QueryServiceRequest{Service: name})
		if err != nil {
			return reconcile.Actual{}, fmt.Errorf("query service %s: %w", name, err)
		}
		for _, i := range resp.GetInstances() {
			here := i.GetService().GetNode() == node
			if here {
				actual.Node = i.GetNode()
			}
			if here || ids[i.GetService().GetId()] {
				actual.Instances = append(actual.Instances, reconcile.Instance{Service: i.GetService(), Checks: i.GetChecks()})
			}
		}
	}
	if actual.Node == nil {
		actual.Node, err = c.node(ctx, node)
	}
	return actual, err
}

// services reads every service of the datacenter: the registry has no index by node yet.
func (c *Client) services(ctx context.Context) ([]*registryv1.Service, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.watch.Watch(ctx, &registryv1.WatchRequest{Table: registryv1.Table_TABLE_SERVICE, Heartbeat: durationpb.New(time.Second)})
	if err != nil {
		return nil, fmt.Errorf("read services: %w", err)
	}
	var services []*registryv1.Service
	for {
		m, err := stream.Recv()
		if err != nil {
			return nil, fmt.Errorf("read services: %w", err)
		}
		if m.GetResync() {
			return nil, fault.New(fault.OutOfRange, ReasonResync, "the registry could not send its services in one piece")
		}
		for _, r := range m.GetRecords() {
			s := &registryv1.Service{}
			if err := proto.Unmarshal(r.GetValue(), s); err != nil {
				return nil, fmt.Errorf("decode service %q: %w", r.GetKey(), err)
			}
			if !r.GetDeleted() {
				services = append(services, s)
			}
		}
		if m.GetSynced() {
			return services, nil
		}
	}
}

func (c *Client) node(ctx context.Context, name string) (*registryv1.Node, error) {
	resp, err := c.catalog.ListNodes(ctx, &registryv1.ListNodesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	for _, n := range resp.GetNodes() {
		if n.GetName() == name {
			return n, nil
		}
	}
	return nil, nil
}

// Register registers the node, and an instance with its checks unless it is nil.
func (c *Client) Register(ctx context.Context, node *registryv1.Node, instance *reconcile.Instance) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req := &registryv1.RegisterRequest{Node: node, RequestId: requestid.New()}
	what := "node " + node.GetName()
	if instance != nil {
		req.Service, req.Checks = instance.Service, instance.Checks
		what = "service " + instance.Service.GetId()
	}
	if _, err := c.catalog.Register(ctx, req); err != nil {
		return fmt.Errorf("register %s: %w", what, err)
	}
	return nil
}

// Deregister removes an instance. One that is not there any more is as good.
func (c *Client) Deregister(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	_, err := c.catalog.Deregister(ctx, &registryv1.DeregisterRequest{ServiceId: id, RequestId: requestid.New()})
	if err != nil && fault.CodeOf(err) != fault.NotFound {
		return fmt.Errorf("deregister service %s: %w", id, err)
	}
	return nil
}

// Update reports outcomes of checks. NotFound when one of them is not registered.
func (c *Client) Update(ctx context.Context, updates []*registryv1.CheckUpdate) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	_, err := c.catalog.UpdateChecks(ctx, &registryv1.UpdateChecksRequest{Updates: updates, RequestId: requestid.New()})
	if err != nil {
		return fmt.Errorf("report %d checks: %w", len(updates), err)
	}
	return nil
}

// Heartbeat says that a node lives. expected is false when the registry expects no heartbeats of
// it.
func (c *Client) Heartbeat(ctx context.Context, node string) (expected bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	resp, err := c.catalog.Heartbeat(ctx, &registryv1.HeartbeatRequest{Nodes: []string{node}, RequestId: requestid.New()})
	if err != nil {
		return false, fmt.Errorf("heartbeat of node %s: %w", node, err)
	}
	return len(resp.GetUnknown()) == 0, nil
}

// ServicesOn returns the services on a node, none when it is not there.
func (c *Client) ServicesOn(ctx context.Context, node string) ([]*registryv1.Service, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	resp, err := c.catalog.GetNode(ctx, &registryv1.GetNodeRequest{Node: node})
	if err != nil && fault.CodeOf(err) != fault.NotFound {
		return nil, fmt.Errorf("read node %s: %w", node, err)
	}
	var services []*registryv1.Service
	for _, i := range resp.GetInstances() {
		services = append(services, i.GetService())
	}
	return services, nil
}

// DeregisterNode removes a node with all that is on it. One that is not there any more is as good.
func (c *Client) DeregisterNode(ctx context.Context, node string) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	_, err := c.catalog.DeregisterNode(ctx, &registryv1.DeregisterNodeRequest{Node: node, RequestId: requestid.New()})
	if err != nil && fault.CodeOf(err) != fault.NotFound {
		return fmt.Errorf("deregister node %s: %w", node, err)
	}
	return nil
}

// HasPolicy reports whether a service has a failover policy that looks like want, and whether it
// has any.
func (c *Client) HasPolicy(ctx context.Context, want *registryv1.FailoverPolicy) (same, some bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	resp, err := c.catalog.GetFailoverPolicy(ctx, &registryv1.GetFailoverPolicyRequest{Service: want.GetService()})
	if fault.CodeOf(err) == fault.NotFound && err != nil {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("read failover policy of %s: %w", want.GetService(), err)
	}
	have := proto.CloneOf(resp.GetPolicy())
	have.ModifyIndex = want.GetModifyIndex()
	return proto.Equal(have, want), true, nil
}

// SetPolicy writes a failover policy, in the primary and through it everywhere.
func (c *Client) SetPolicy(ctx context.Context, policy *registryv1.FailoverPolicy) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	_, err := c.catalog.SetFailoverPolicy(ctx, &registryv1.SetFailoverPolicyRequest{Policy: policy, RequestId: requestid.New()})
	if err != nil {
		return fmt.Errorf("set failover policy of %s: %w", policy.GetService(), err)
	}
	return nil
}
