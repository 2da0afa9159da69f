package konsul

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
)

// ReasonNoHeartbeats is the reason of a NotFound fault about a node that nobody expects heartbeats
// of.
const ReasonNoHeartbeats = "NO_HEARTBEATS_EXPECTED"

// Node is a machine that services run on.
type Node struct {
	Name string
	// Address is a host or IP.
	Address string
	Meta    map[string]string
	// LivenessTTL makes the node and all its instances critical when no heartbeat came for so long,
	// and has it deregistered after a setting of the registry; 0: nobody expects heartbeats.
	LivenessTTL time.Duration
}

// NodeRegistration is a node to put into the catalogue, with what runs on it.
type NodeRegistration struct {
	Node
	// Services are registered with the node, in one commit; their Node, NodeAddress and Datacenter
	// are the node's. Instances that are not named stay as they are.
	Services []Registration
	// Checks are the node's own, which count for all its instances. They are added to those it has.
	Checks []Check
	// Datacenter to register in; empty: the client's.
	Datacenter string
	// Replace leaves nothing of Meta and LivenessTTL that is not given, and takes over Services
	// that others have, which is AlreadyExists otherwise.
	Replace bool
}

// NodeStatus is a node with its health and what runs on it.
type NodeStatus struct {
	Node
	// Status is the worst of the node's own checks.
	Status Status
	// Services are its instances, by id.
	Services []*Service
}

// NodesClient registers nodes and says that they live.
type NodesClient struct {
	api registryv1.CatalogServiceClient
	cfg Config
}

// Register creates or updates a node with many instances, in one commit. Meta and LivenessTTL that
// are not given stay.
func (c *NodesClient) Register(ctx context.Context, r *NodeRegistration) error {
	request := &registryv1.RegisterNodeRequest{
		Node:       &registryv1.Node{Name: r.Name, Address: r.Address, Meta: r.Meta},
		Datacenter: c.cfg.datacenter(r.Datacenter), RequestId: requestID(ctx), Replace: r.Replace,
	}
	if r.LivenessTTL != 0 {
		request.Node.LivenessTtl = durationpb.New(r.LivenessTTL)
	}
	for i := range r.Services {
		service, err := r.Services[i].service(r.Name)
		if err != nil {
			return err
		}
		request.Services = append(request.Services, service)
	}
	var err error
	if request.Checks, err = checksOf(r.Checks, ""); err != nil {
		return err
	}
	_, err = c.api.RegisterNode(ctx, request)
	return err
}

// Get returns a node with its health and instances. NotFound when it is not there. opts may be nil.
func (c *NodesClient) Get(ctx context.Context, name string, opts *ListOptions) (*NodeStatus, error) {
	if opts == nil {
		opts = &ListOptions{}
	}
	answer, err := c.api.GetNode(ctx, &registryv1.GetNodeRequest{
		Node: name, Datacenter: c.cfg.datacenter(opts.Datacenter), ReadMode: opts.ReadMode.proto(),
	})
	if err != nil {
		return nil, err
	}
	node := &NodeStatus{Node: nodeFrom(answer.GetNode()), Status: statusFrom(answer.GetStatus())}
	for _, i := range answer.GetInstances() {
		node.Services = append(node.Services, serviceFrom(i))
	}
	return node, nil
}

// List returns the nodes of a datacenter. opts may be nil.
func (c *NodesClient) List(ctx context.Context, opts *ListOptions) ([]Node, error) {
	if opts == nil {
		opts = &ListOptions{}
	}
	answer, err := c.api.ListNodes(ctx, &registryv1.ListNodesRequest{Datacenter: c.cfg.datacenter(opts.Datacenter), ReadMode: opts.ReadMode.proto()})
	if err != nil {
		return nil, err
	}
	nodes := make([]Node, len(answer.GetNodes()))
	for i, n := range answer.GetNodes() {
		nodes[i] = nodeFrom(n)
	}
	return nodes, nil
}

// Deregister removes a node with its instances and all their checks. NotFound when it is not there.
// opts may be nil.
func (c *NodesClient) Deregister(ctx context.Context, name string, opts *WriteOptions) error {
	if opts == nil {
		opts = &WriteOptions{}
	}
	_, err := c.api.DeregisterNode(ctx, &registryv1.DeregisterNodeRequest{
		Node: name, Datacenter: c.cfg.datacenter(opts.Datacenter), RequestId: requestID(ctx),
	})
	return err
}

// Heartbeat says that nodes live that were registered with a liveness TTL. NotFound with
// ReasonNoHeartbeats when one of them was not, or is not there any more; the others live. Send
// several within the TTL. opts may be nil.
func (c *NodesClient) Heartbeat(ctx context.Context, nodes []string, opts *WriteOptions) error {
	if opts == nil {
		opts = &WriteOptions{}
	}
	answer, err := c.api.Heartbeat(ctx, &registryv1.HeartbeatRequest{
		Nodes: nodes, Datacenter: c.cfg.datacenter(opts.Datacenter), RequestId: requestID(ctx),
	})
	if err != nil || len(answer.GetUnknown()) == 0 {
		return err
	}
	return fault.New(fault.NotFound, ReasonNoHeartbeats, "nobody expects heartbeats of %s", strings.Join(answer.GetUnknown(), ", ")).
		WithRemedy("register it with a liveness TTL")
}

// Maintain switches the maintenance mode of a node: while it is on, all its instances are critical.
// opts may be nil.
func (c *NodesClient) Maintain(ctx context.Context, name string, on bool, reason string, opts *WriteOptions) error {
	return maintain(ctx, c.api, c.cfg, &registryv1.SetMaintenanceRequest{Node: name, Enabled: on, Reason: reason}, opts)
}

// Maintain switches the maintenance mode of an instance: while it is on, it is critical. opts may
// be nil.
func (c *ServiceClient) Maintain(ctx context.Context, id string, on bool, reason string, opts *WriteOptions) error {
	return maintain(ctx, c.api.Catalog, c.cfg, &registryv1.SetMaintenanceRequest{ServiceId: id, Enabled: on, Reason: reason}, opts)
}

func maintain(ctx context.Context, api registryv1.CatalogServiceClient, cfg Config, request *registryv1.SetMaintenanceRequest, opts *WriteOptions) error {
	if opts == nil {
		opts = &WriteOptions{}
	}
	request.Datacenter, request.RequestId = cfg.datacenter(opts.Datacenter), requestID(ctx)
	_, err := api.SetMaintenance(ctx, request)
	return err
}

// CheckReport is the outcome of one check.
type CheckReport struct {
	// ServiceID is the instance's id; or Node names the node whose own check it is.
	ServiceID, Node string
	CheckID         string
	Status          Status
	Output          string
}

// Report records outcomes of checks. One that does not change the status only renews the check's
// TTL. opts may be nil.
func (c *ServiceClient) Report(ctx context.Context, reports []CheckReport, opts *WriteOptions) error {
	if opts == nil {
		opts = &WriteOptions{}
	}
	request := &registryv1.UpdateChecksRequest{Datacenter: c.cfg.datacenter(opts.Datacenter), RequestId: requestID(ctx)}
	for _, r := range reports {
		status, ok := r.Status.Proto()
		if !ok || r.Status == StatusUnknown {
			return invalid("Status", "check %q: %q is no status", r.CheckID, r.Status)
		}
		request.Updates = append(request.Updates, &registryv1.CheckUpdate{
			ServiceId: r.ServiceID, Node: r.Node, CheckId: r.CheckID, Status: status, Output: r.Output,
		})
	}
	_, err := c.api.Catalog.UpdateChecks(ctx, request)
	return err
}

func statusesOf(statuses []Status) ([]registryv1.HealthStatus, error) {
	var out []registryv1.HealthStatus
	for _, s := range statuses {
		status, ok := s.Proto()
		if !ok || s == StatusUnknown {
			return nil, invalid("Statuses", "%q is no status", s)
		}
		out = append(out, status)
	}
	return out, nil
}

func nodeFrom(n *registryv1.Node) Node {
	return Node{Name: n.GetName(), Address: n.GetAddress(), Meta: n.GetMeta(), LivenessTTL: n.GetLivenessTtl().AsDuration()}
}
