// Package api is the agent's gRPC face. It converts and decides nothing. Safe for concurrent use.
package api

import (
	"context"

	agentv1 "konsul.dev/proto/gen/konsul/agent/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/services/agent/internal/local"
)

// Node knows the node and its services.
type Node interface {
	// Node returns the node itself.
	Node() *registryv1.Node
	// Services returns its services, ordered by id.
	Services() []local.Service
}

// Reporter takes reports of TTL checks.
type Reporter interface {
	// Report tells a TTL check how its service is doing; NotFound when there is none.
	Report(ctx context.Context, key local.CheckKey, outcome local.Outcome) error
}

// Server implements AgentService.
type Server struct {
	agentv1.UnimplementedAgentServiceServer

	node     Node
	reporter Reporter
}

// New returns a server for a node.
func New(node Node, reporter Reporter) *Server { return &Server{node: node, reporter: reporter} }

// ListLocalServices implements AgentService.
func (s *Server) ListLocalServices(context.Context, *agentv1.ListLocalServicesRequest) (*agentv1.ListLocalServicesResponse, error) {
	resp := &agentv1.ListLocalServicesResponse{Node: s.node.Node().GetName()}
	for _, service := range s.node.Services() {
		resp.Services = append(resp.Services, &agentv1.LocalService{
			Service: service.Service, Checks: service.Checks, Synced: service.Synced,
		})
	}
	return resp, nil
}

// ReportCheck implements AgentService.
func (s *Server) ReportCheck(ctx context.Context, req *agentv1.ReportCheckRequest) (*agentv1.ReportCheckResponse, error) {
	switch req.GetStatus() {
	case registryv1.HealthStatus_HEALTH_STATUS_PASSING, registryv1.HealthStatus_HEALTH_STATUS_WARNING, registryv1.HealthStatus_HEALTH_STATUS_CRITICAL:
	default:
		return nil, fault.Invalid("status", "%v is no status", req.GetStatus()).WithRemedy("use passing, warning or critical")
	}
	err := s.reporter.Report(ctx, local.CheckKey{Service: req.GetServiceId(), Check: req.GetCheckId()},
		local.Outcome{Status: req.GetStatus(), Output: req.GetOutput()})
	if err != nil {
		return nil, err
	}
	return &agentv1.ReportCheckResponse{}, nil
}
