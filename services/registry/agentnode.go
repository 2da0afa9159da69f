package registry

import (
	"cmp"
	"context"

	"google.golang.org/grpc"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/forward"
	"konsul.dev/services/registry/internal/guard"
)

// ReasonNodeDenied is the reason of a call by which an agent would act for another node than its
// own.
const ReasonNodeDenied = "NODE_DENIED"

// instanceNodes knows where instances are.
type instanceNodes interface {
	// NodeOf returns the node an instance is on, false when the instance is not known.
	NodeOf(id string) (node string, known bool)
}

// ownNode is an interceptor behind the guard: it holds an agent to the node that its certificate
// names. One of an earlier version names none, and is not held.
func ownNode(instances instanceNodes, guard guard.Guard) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		own := forward.AgentNode(ctx)
		if own == "" {
			return handler(ctx, req)
		}
		for _, node := range changed(instances, req) {
			if node != own {
				err := fault.New(fault.PermissionDenied, ReasonNodeDenied, "the agent of node %s may not act for node %.128q", own, node).
					WithRemedy("register it through the agent of its own node, or with a token")
				guard.Refused(ctx, info.FullMethod, err)
				return nil, err
			}
		}
		return handler(ctx, req)
	}
}

// changed returns the nodes that a registration, or what keeps one up, is about.
func changed(instances instanceNodes, req any) []string {
	of := func(instance, node string) []string {
		if instance == "" {
			return []string{node}
		}
		if on, known := instances.NodeOf(instance); known {
			return []string{on}
		}
		return nil // What is not there is not found.
	}
	switch r := req.(type) {
	case *registryv1.RegisterRequest:
		return append(of(idOf(r.GetService()), r.GetNode().GetName()), r.GetNode().GetName())
	case *registryv1.RegisterNodeRequest:
		nodes := []string{r.GetNode().GetName()}
		for _, s := range r.GetServices() {
			nodes = append(nodes, of(idOf(s.GetService()), r.GetNode().GetName())...)
		}
		return nodes
	case *registryv1.DeregisterRequest:
		return of(r.GetServiceId(), "")
	case *registryv1.DeregisterNodeRequest:
		return []string{r.GetNode()}
	case *registryv1.DeregisterCheckRequest:
		return of(r.GetServiceId(), r.GetNode())
	case *registryv1.SetMaintenanceRequest:
		return of(r.GetServiceId(), r.GetNode())
	case *registryv1.UpdateChecksRequest:
		var nodes []string
		for _, u := range r.GetUpdates() {
			nodes = append(nodes, of(u.GetServiceId(), u.GetNode())...)
		}
		return nodes
	case *registryv1.HeartbeatRequest:
		return r.GetNodes()
	}
	return nil
}

// idOf returns the id that a service is registered under.
func idOf(s *registryv1.Service) string { return cmp.Or(s.GetId(), s.GetName()) }
