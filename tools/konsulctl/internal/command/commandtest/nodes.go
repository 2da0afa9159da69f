package commandtest

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul/konsultest"
)

// Critical is the status of what is not well.
const Critical = registryv1.HealthStatus_HEALTH_STATUS_CRITICAL

// nodes teaches the gateway the node web-1, under maintenance, with the instances of api.
func nodes(g *konsultest.Gateway) {
	read := &registryv1.QueryMeta{Datacenter: "us-west", Index: 12, KnownLeader: true}
	written := &registryv1.WriteMeta{Datacenter: "us-west", Index: 14}
	node := &registryv1.Node{Name: "web-1", Address: "10.0.0.1", Meta: map[string]string{"rack": "a1", "arch": "arm64"}, LivenessTtl: durationpb.New(30 * time.Second)}
	maintenance := &registryv1.Check{Id: "_maintenance", Name: "maintenance", Node: "web-1", Status: Critical, Output: "new disk", ModifiedAt: at(2)}
	http := &registryv1.Check{Id: "http", ServiceId: "api-1", Status: Passing, Output: "200 OK", Ttl: durationpb.New(15 * time.Second), ModifiedAt: at(3)}
	missing := fault.New(fault.NotFound, "NODE_NOT_FOUND", "no node %q is registered here", "ghost").WithField("node")
	konsultest.On(g, func(*registryv1.ListNodesRequest) (*registryv1.ListNodesResponse, error) {
		return &registryv1.ListNodesResponse{Nodes: []*registryv1.Node{node, {Name: "web-2", Address: "10.0.0.2"}}, Meta: read}, nil
	})
	konsultest.On(g, func(r *registryv1.GetNodeRequest) (*registryv1.GetNodeResponse, error) {
		if r.GetNode() == "ghost" {
			return nil, missing
		}
		return &registryv1.GetNodeResponse{
			Node: node, Checks: []*registryv1.Check{maintenance}, Status: Critical, Instances: []*registryv1.ServiceInstance{Instance("us-west", "api-1", Critical)}, Meta: read,
		}, nil
	})
	konsultest.On(g, func(*registryv1.GetServiceRequest) (*registryv1.GetServiceResponse, error) {
		i := Instance("us-west", "api-1", Critical)
		i.Checks, i.NodeChecks = []*registryv1.Check{http}, []*registryv1.Check{maintenance}
		return &registryv1.GetServiceResponse{Instance: i, Meta: read}, nil
	})
	konsultest.On(g, func(r *registryv1.ListChecksRequest) (*registryv1.ListChecksResponse, error) {
		answer := &registryv1.ListChecksResponse{Checks: []*registryv1.CheckSummary{{Check: maintenance, Node: "web-1"}}, Meta: read}
		if r.GetCheckId() == "" {
			answer.Checks = append(answer.Checks, &registryv1.CheckSummary{Check: http, Node: "web-1", Service: "api"})
		}
		return answer, nil
	})
	konsultest.On(g, func(*registryv1.RegisterNodeRequest) (*registryv1.RegisterNodeResponse, error) {
		return &registryv1.RegisterNodeResponse{Meta: written}, nil
	})
	konsultest.On(g, func(r *registryv1.DeregisterNodeRequest) (*registryv1.DeregisterNodeResponse, error) {
		if r.GetNode() == "ghost" {
			return nil, missing
		}
		return &registryv1.DeregisterNodeResponse{Meta: written, Instances: 2}, nil
	})
	konsultest.On(g, func(r *registryv1.HeartbeatRequest) (*registryv1.HeartbeatResponse, error) {
		answer := &registryv1.HeartbeatResponse{Meta: written}
		for _, n := range r.GetNodes() {
			if n == "ghost" {
				answer.Unknown = append(answer.Unknown, n)
			}
		}
		return answer, nil
	})
	konsultest.On(g, func(*registryv1.UpdateChecksRequest) (*registryv1.UpdateChecksResponse, error) {
		return &registryv1.UpdateChecksResponse{Meta: written}, nil
	})
	konsultest.On(g, func(*registryv1.DeregisterCheckRequest) (*registryv1.DeregisterCheckResponse, error) {
		return &registryv1.DeregisterCheckResponse{Meta: written}, nil
	})
	konsultest.On(g, func(*registryv1.SetMaintenanceRequest) (*registryv1.SetMaintenanceResponse, error) {
		return &registryv1.SetMaintenanceResponse{Meta: written}, nil
	})
}
