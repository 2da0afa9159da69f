package command_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul/konsultest"
)

const critical = registryv1.HealthStatus_HEALTH_STATUS_CRITICAL

// nodes teaches the gateway the node web-1, under maintenance, with the instances of api.
func nodes(g *konsultest.Gateway) {
	read := &registryv1.QueryMeta{Datacenter: "us-west", Index: 12, KnownLeader: true}
	written := &registryv1.WriteMeta{Datacenter: "us-west", Index: 14}
	node := &registryv1.Node{Name: "web-1", Address: "10.0.0.1", Meta: map[string]string{"rack": "a1", "arch": "arm64"}, LivenessTtl: durationpb.New(30 * time.Second)}
	maintenance := &registryv1.Check{Id: "_maintenance", Name: "maintenance", Node: "web-1", Status: critical, Output: "new disk", ModifiedAt: at(2)}
	http := &registryv1.Check{Id: "http", ServiceId: "api-1", Status: passing, Output: "200 OK", Ttl: durationpb.New(15 * time.Second), ModifiedAt: at(3)}
	missing := fault.New(fault.NotFound, "NODE_NOT_FOUND", "no node %q is registered here", "ghost").WithField("node")
	konsultest.On(g, func(*registryv1.ListNodesRequest) (*registryv1.ListNodesResponse, error) {
		return &registryv1.ListNodesResponse{Nodes: []*registryv1.Node{node, {Name: "web-2", Address: "10.0.0.2"}}, Meta: read}, nil
	})
	konsultest.On(g, func(r *registryv1.GetNodeRequest) (*registryv1.GetNodeResponse, error) {
		if r.GetNode() == "ghost" {
			return nil, missing
		}
		return &registryv1.GetNodeResponse{
			Node: node, Checks: []*registryv1.Check{maintenance}, Status: critical, Instances: []*registryv1.ServiceInstance{instance("us-west", "api-1", critical)}, Meta: read,
		}, nil
	})
	konsultest.On(g, func(*registryv1.GetServiceRequest) (*registryv1.GetServiceResponse, error) {
		i := instance("us-west", "api-1", critical)
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

func TestCatalogueCommandsAskTheRightThing(t *testing.T) {
	statuses := []registryv1.HealthStatus{registryv1.HealthStatus_HEALTH_STATUS_WARNING, critical}
	update := func(u *registryv1.CheckUpdate) *registryv1.UpdateChecksRequest {
		return &registryv1.UpdateChecksRequest{Updates: []*registryv1.CheckUpdate{u}}
	}
	for line, want := range map[string]proto.Message{
		"service get api --status warning,critical --meta a=b --node-meta c=d --tag t --filter Service.Port!=80": &registryv1.QueryServiceRequest{
			Service: "api", Statuses: statuses, Meta: map[string]string{"a": "b"}, NodeMeta: map[string]string{"c": "d"}, Tags: []string{"t"}, Filter: "Service.Port!=80",
		},
		"service list --tag t --status warning,critical --meta a=b --node-meta c=d --filter Service.Port!=80": &registryv1.ListServicesRequest{
			Statuses: statuses, Meta: map[string]string{"a": "b"}, NodeMeta: map[string]string{"c": "d"}, Tags: []string{"t"}, Filter: "Service.Port!=80",
		},
		"service instance api-1 --datacenter us-east": &registryv1.GetServiceRequest{ServiceId: "api-1", Datacenter: "us-east"},
		"node list --meta a=b --status warning,critical --filter Name==x": &registryv1.ListNodesRequest{
			Meta: map[string]string{"a": "b"}, Statuses: statuses, Filter: "Name==x",
		},
		"node get web-1 --read-mode stale": &registryv1.GetNodeRequest{Node: "web-1", ReadMode: registryv1.ReadMode_READ_MODE_STALE},
		"node register web-1 --address 10.0.0.1 --meta a=b --liveness-ttl 30s": &registryv1.RegisterNodeRequest{Node: &registryv1.Node{
			Name: "web-1", Address: "10.0.0.1", Meta: map[string]string{"a": "b"}, LivenessTtl: durationpb.New(30 * time.Second),
		}},
		"node deregister web-1":      &registryv1.DeregisterNodeRequest{Node: "web-1"},
		"node heartbeat web-1 web-2": &registryv1.HeartbeatRequest{Nodes: []string{"web-1", "web-2"}},
		"check list --node web-1 --service api --id http --status warning,critical": &registryv1.ListChecksRequest{
			Node: "web-1", Service: "api", CheckId: "http", Statuses: statuses,
		},
		"check update http --instance api-1 --status passing --note fine": update(&registryv1.CheckUpdate{ServiceId: "api-1", CheckId: "http", Status: passing, Output: "fine"}),
		"check pass http --instance api-1":                                update(&registryv1.CheckUpdate{ServiceId: "api-1", CheckId: "http", Status: passing}),
		"check warn disk --node web-1":                                    update(&registryv1.CheckUpdate{Node: "web-1", CheckId: "disk", Status: registryv1.HealthStatus_HEALTH_STATUS_WARNING}),
		"check fail disk --node web-1 --note full":                        update(&registryv1.CheckUpdate{Node: "web-1", CheckId: "disk", Status: critical, Output: "full"}),
		"check deregister disk --node web-1":                              &registryv1.DeregisterCheckRequest{CheckId: "disk", Node: "web-1"},
		"maintenance enable --node web-1 --reason now":                    &registryv1.SetMaintenanceRequest{Node: "web-1", Enabled: true, Reason: "now"},
		"maint disable --instance api-1":                                  &registryv1.SetMaintenanceRequest{ServiceId: "api-1"},
		"maintenance status --service api":                                &registryv1.ListChecksRequest{CheckId: "_maintenance", Service: "api"},
	} {
		t.Run(line, func(t *testing.T) {
			gateway := federation(t)
			r := ctl(t, gateway, "", asArguments(line)...)
			require.Zero(t, r.code, r.stderr)
			require.Len(t, gateway.Requests(), 1)
			same(t, want, withoutRequestID(gateway.Requests()[0]))
		})
	}
}

// withoutRequestID answers a request as it was before the SDK gave it an id.
func withoutRequestID(m proto.Message) proto.Message {
	m = proto.Clone(m)
	if field := m.ProtoReflect().Descriptor().Fields().ByName("request_id"); field != nil {
		m.ProtoReflect().Clear(field)
	}
	return m
}

func TestCatalogueCommandsExitCodes(t *testing.T) {
	gateway := federation(t)
	for line, code := range map[string]int{
		"node get ghost":                                3,
		"node deregister ghost":                         3,
		"node heartbeat web-1 ghost":                    3,
		"node heartbeat":                                2,
		"node register web-1":                           2,
		"check pass http":                               2,
		"check pass http --instance a --node b":         2,
		"check update http --instance a --status fine":  2,
		"check list --status fine":                      2,
		"maintenance enable":                            2,
		"service get api --all-datacenters --filter x":  2,
		"service get api --status passing --all-status": 2,
		"service get api --status unwell":               2,
	} {
		t.Run(line, func(t *testing.T) {
			r := ctl(t, gateway, "", asArguments(line)...)
			require.Equal(t, code, r.code, r.stderr)
		})
	}
}
