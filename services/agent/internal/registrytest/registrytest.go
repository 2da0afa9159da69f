// Package registrytest is a registry for the agent's tests: it keeps a catalogue in memory, speaks
// the real gRPC contract over mutual TLS, and misbehaves on request. Like the real one, it keeps a
// check's output as long as its status stays, and expects heartbeats only of nodes with a TTL; it
// lets no deadline pass by itself. Safe for concurrent use.
package registrytest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
)

// Registry is a datacenter's registry.
type Registry struct {
	registryv1.UnimplementedCatalogServiceServer
	registryv1.UnimplementedWatchServiceServer

	identity identity.Source
	addr     string

	mu       sync.Mutex
	server   *rpc.Server
	nodes    map[string]*registryv1.Node
	services map[string]*registryv1.Service
	checks   map[string][]*registryv1.Check
	policies map[string]*registryv1.FailoverPolicy
	calls    []string
	beats    int
	expected map[string]bool // nodes that should send heartbeats
	refuse   map[string]error
}

// Start serves an empty registry until the test ends.
func Start(t testing.TB, source identity.Source) *Registry {
	t.Helper()
	r := &Registry{
		identity: source, addr: "127.0.0.1:0", nodes: map[string]*registryv1.Node{}, services: map[string]*registryv1.Service{},
		checks: map[string][]*registryv1.Check{}, policies: map[string]*registryv1.FailoverPolicy{}, refuse: map[string]error{},
		expected: map[string]bool{},
	}
	r.Serve(t)
	t.Cleanup(r.Down)
	return r
}

// Serve opens the port, the same one after Down.
func (r *Registry) Serve(t testing.TB) {
	t.Helper()
	listener, err := net.Listen("tcp", r.addr)
	require.NoError(t, err)
	r.addr = listener.Addr().String()
	server, err := rpc.NewServer(rpc.ServerParams{
		Name: "registry", Identity: r.identity, Telemetry: obs.Discard(),
	})
	require.NoError(t, err)
	registryv1.RegisterCatalogServiceServer(server, r)
	registryv1.RegisterWatchServiceServer(server, r)
	r.mu.Lock()
	r.server = server
	r.mu.Unlock()
	go func() { _ = server.Serve(listener) }()
}

// Down cuts every connection and closes the port.
func (r *Registry) Down() {
	r.mu.Lock()
	server := r.server
	r.mu.Unlock()
	server.Stop()
}

// Addr returns where it listens.
func (r *Registry) Addr() string { return r.addr }

// Edit changes the catalogue behind everybody's back.
func (r *Registry) Edit(fn func(services map[string]*registryv1.Service, checks map[string][]*registryv1.Check)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fn(r.services, r.checks)
}

// SetPolicyOf writes a policy as somebody else would.
func (r *Registry) SetPolicyOf(policy *registryv1.FailoverPolicy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.policies[policy.GetService()] = policy
}

// Refuse makes a call, such as "register api", fail; nil: succeed again.
func (r *Registry) Refuse(call string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse[call] = err
}

// Calls returns the writes so far, such as "register api" and "update api/http", refused ones
// included.
func (r *Registry) Calls() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// Service returns a service, nil when it is not there.
func (r *Registry) Service(id string) *registryv1.Service {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.services[id]
}

// Node returns a node, nil when it is not there.
func (r *Registry) Node(name string) *registryv1.Node {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.nodes[name]
}

// Forget makes the registry expect no heartbeats of a node, though it says that it does: a server
// that knows of none took the registration.
func (r *Registry) Forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.expected, name)
}

// PutNode replaces a node as somebody else would.
func (r *Registry) PutNode(node *registryv1.Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.putNode(node)
}

// registered returns a node as a registration leaves it: what that does not name stays, a TTL of 0
// ends the expectation.
func (r *Registry) registered(node *registryv1.Node) *registryv1.Node {
	node = proto.CloneOf(node)
	was := r.nodes[node.GetName()]
	if len(node.GetMeta()) == 0 {
		node.Meta = was.GetMeta()
	}
	switch {
	case node.GetLivenessTtl() == nil:
		node.LivenessTtl = was.GetLivenessTtl()
	case node.GetLivenessTtl().AsDuration() == 0:
		node.LivenessTtl = nil
	}
	return node
}

func (r *Registry) putNode(node *registryv1.Node) {
	r.nodes[node.GetName()], r.expected[node.GetName()] = node, node.GetLivenessTtl() != nil
}

// Reap removes a node with all that is on it, as if it had been dead for long.
func (r *Registry) Reap(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reap(name)
}

func (r *Registry) reap(name string) {
	delete(r.nodes, name)
	delete(r.expected, name)
	for id, s := range r.services {
		if s.GetNode() == name {
			delete(r.services, id)
			delete(r.checks, id)
		}
	}
}

// Heartbeats returns how many heartbeats came, refused ones included.
func (r *Registry) Heartbeats() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.beats
}

// Policy returns a service's failover policy.
func (r *Registry) Policy(service string) *registryv1.FailoverPolicy {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.policies[service]
}

// Status returns a check's status.
func (r *Registry) Status(service, check string) registryv1.HealthStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.check(service, check).GetStatus()
}

func (r *Registry) check(service, check string) *registryv1.Check {
	for _, c := range r.checks[service] {
		if c.GetId() == check {
			return c
		}
	}
	return nil
}

// call notes a write under mu.
func (r *Registry) call(format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	r.calls = append(r.calls, what)
	return r.refuse[what]
}

// Register implements CatalogService.
func (r *Registry) Register(_ context.Context, req *registryv1.RegisterRequest) (*registryv1.RegisterResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	what := cmp.Or(req.GetService().GetId(), "node")
	if err := r.call("register %s", what); err != nil {
		return nil, err
	}
	r.putNode(r.registered(req.GetNode()))
	if s := req.GetService(); s != nil {
		s = proto.CloneOf(s)
		s.ModifyIndex = uint64(len(r.calls))
		r.services[s.GetId()], r.checks[s.GetId()] = s, req.GetChecks()
	}
	return &registryv1.RegisterResponse{Service: req.GetService()}, nil
}

// Deregister implements CatalogService.
func (r *Registry) Deregister(_ context.Context, req *registryv1.DeregisterRequest) (*registryv1.DeregisterResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.call("deregister %s", req.GetServiceId()); err != nil {
		return nil, err
	}
	if r.services[req.GetServiceId()] == nil {
		return nil, fault.New(fault.NotFound, "SERVICE_NOT_FOUND", "no such service")
	}
	delete(r.services, req.GetServiceId())
	delete(r.checks, req.GetServiceId())
	return &registryv1.DeregisterResponse{}, nil
}

// DeregisterNode implements CatalogService.
func (r *Registry) DeregisterNode(_ context.Context, req *registryv1.DeregisterNodeRequest) (*registryv1.DeregisterNodeResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.call("deregister node"); err != nil {
		return nil, err
	}
	if r.nodes[req.GetNode()] == nil {
		return nil, fault.New(fault.NotFound, "NODE_NOT_FOUND", "no such node")
	}
	r.reap(req.GetNode())
	return &registryv1.DeregisterNodeResponse{}, nil
}

// Heartbeat implements CatalogService. It is not among the calls.
func (r *Registry) Heartbeat(_ context.Context, req *registryv1.HeartbeatRequest) (*registryv1.HeartbeatResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.beats++
	if err := r.refuse["heartbeat"]; err != nil {
		return nil, err
	}
	resp := &registryv1.HeartbeatResponse{}
	for _, name := range req.GetNodes() {
		if !r.expected[name] {
			resp.Unknown = append(resp.Unknown, name)
		}
	}
	return resp, nil
}

// GetNode implements CatalogService.
func (r *Registry) GetNode(_ context.Context, req *registryv1.GetNodeRequest) (*registryv1.GetNodeResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	node := r.nodes[req.GetNode()]
	if node == nil {
		return nil, fault.New(fault.NotFound, "NODE_NOT_FOUND", "no such node")
	}
	resp := &registryv1.GetNodeResponse{Node: node}
	for _, id := range slices.Sorted(maps.Keys(r.services)) {
		if s := r.services[id]; s.GetNode() == req.GetNode() {
			resp.Instances = append(resp.Instances, proto.CloneOf(&registryv1.ServiceInstance{Node: node, Service: s, Checks: r.checks[id]}))
		}
	}
	return resp, nil
}

// UpdateChecks implements CatalogService.
func (r *Registry) UpdateChecks(_ context.Context, req *registryv1.UpdateChecksRequest) (*registryv1.UpdateChecksResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range req.GetUpdates() {
		if err := r.call("update %s/%s", u.GetServiceId(), u.GetCheckId()); err != nil {
			return nil, err
		}
		c := r.check(u.GetServiceId(), u.GetCheckId())
		if c == nil {
			return nil, fault.New(fault.NotFound, "CHECK_NOT_FOUND", "no such check")
		}
		if c.GetStatus() != u.GetStatus() {
			c.Status, c.Output = u.GetStatus(), u.GetOutput()
		}
	}
	return &registryv1.UpdateChecksResponse{}, nil
}

// QueryService implements CatalogService.
func (r *Registry) QueryService(_ context.Context, req *registryv1.QueryServiceRequest) (*registryv1.QueryServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	resp := &registryv1.QueryServiceResponse{}
	for _, id := range slices.Sorted(maps.Keys(r.services)) {
		if s := r.services[id]; s.GetName() == req.GetService() {
			instance := &registryv1.ServiceInstance{Node: r.nodes[s.GetNode()], Service: s, Checks: r.checks[id]}
			resp.Instances = append(resp.Instances, proto.CloneOf(instance))
		}
	}
	return resp, nil
}

// ListNodes implements CatalogService.
func (r *Registry) ListNodes(context.Context, *registryv1.ListNodesRequest) (*registryv1.ListNodesResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &registryv1.ListNodesResponse{Nodes: slices.Collect(maps.Values(r.nodes))}, nil
}

// GetFailoverPolicy implements CatalogService.
func (r *Registry) GetFailoverPolicy(_ context.Context, req *registryv1.GetFailoverPolicyRequest) (*registryv1.GetFailoverPolicyResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if policy := r.policies[req.GetService()]; policy != nil {
		return &registryv1.GetFailoverPolicyResponse{Policy: policy}, nil
	}
	return nil, fault.New(fault.NotFound, "FAILOVER_POLICY_NOT_FOUND", "no policy")
}

// SetFailoverPolicy implements CatalogService.
func (r *Registry) SetFailoverPolicy(_ context.Context, req *registryv1.SetFailoverPolicyRequest) (*registryv1.SetFailoverPolicyResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.call("policy %s", req.GetPolicy().GetService()); err != nil {
		return nil, err
	}
	policy := proto.CloneOf(req.GetPolicy())
	policy.ModifyIndex = uint64(len(r.calls))
	r.policies[policy.GetService()] = policy
	return &registryv1.SetFailoverPolicyResponse{}, nil
}

// Watch implements WatchService: the services as they are now, one a message.
func (r *Registry) Watch(req *registryv1.WatchRequest, stream grpc.ServerStreamingServer[registryv1.WatchResponse]) error {
	if req.GetTable() != registryv1.Table_TABLE_SERVICE {
		return fault.Invalid("table", "only services here")
	}
	r.mu.Lock()
	messages := []*registryv1.WatchResponse{{Records: []*registryv1.Record{{Table: req.GetTable(), Key: "gone", Deleted: true}}}}
	for id, s := range r.services {
		value, err := proto.Marshal(s)
		if err != nil {
			r.mu.Unlock()
			return err
		}
		messages = append(messages, &registryv1.WatchResponse{Records: []*registryv1.Record{{Table: req.GetTable(), Key: id, Value: value}}})
	}
	r.mu.Unlock()
	messages[len(messages)-1].Synced = true
	for _, m := range messages {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}
