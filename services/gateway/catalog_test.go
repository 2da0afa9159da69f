package gateway_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// ask keeps what the catalogue was asked.
func (d *datacenter) ask(req proto.Message) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, req)
}

func (d *datacenter) Register(_ context.Context, req *registryv1.RegisterRequest) (*registryv1.RegisterResponse, error) {
	d.ask(req)
	return &registryv1.RegisterResponse{}, nil
}

func (d *datacenter) RegisterNode(_ context.Context, req *registryv1.RegisterNodeRequest) (*registryv1.RegisterNodeResponse, error) {
	d.ask(req)
	return &registryv1.RegisterNodeResponse{}, nil
}

func (d *datacenter) DeregisterNode(_ context.Context, req *registryv1.DeregisterNodeRequest) (*registryv1.DeregisterNodeResponse, error) {
	d.ask(req)
	return &registryv1.DeregisterNodeResponse{}, nil
}

func (d *datacenter) DeregisterCheck(_ context.Context, req *registryv1.DeregisterCheckRequest) (*registryv1.DeregisterCheckResponse, error) {
	d.ask(req)
	return &registryv1.DeregisterCheckResponse{}, nil
}

func (d *datacenter) Heartbeat(_ context.Context, req *registryv1.HeartbeatRequest) (*registryv1.HeartbeatResponse, error) {
	d.ask(req)
	return &registryv1.HeartbeatResponse{}, nil
}

func (d *datacenter) SetMaintenance(_ context.Context, req *registryv1.SetMaintenanceRequest) (*registryv1.SetMaintenanceResponse, error) {
	d.ask(req)
	return &registryv1.SetMaintenanceResponse{}, nil
}

func (d *datacenter) GetService(_ context.Context, req *registryv1.GetServiceRequest) (*registryv1.GetServiceResponse, error) {
	d.ask(req)
	return &registryv1.GetServiceResponse{}, nil
}

func (d *datacenter) GetNode(_ context.Context, req *registryv1.GetNodeRequest) (*registryv1.GetNodeResponse, error) {
	d.ask(req)
	return &registryv1.GetNodeResponse{}, nil
}

func (d *datacenter) ListChecks(_ context.Context, req *registryv1.ListChecksRequest) (*registryv1.ListChecksResponse, error) {
	d.ask(req)
	return &registryv1.ListChecksResponse{}, nil
}

func (d *datacenter) ListServices(_ context.Context, req *registryv1.ListServicesRequest) (*registryv1.ListServicesResponse, error) {
	d.ask(req)
	return &registryv1.ListServicesResponse{}, nil
}

func (d *datacenter) ListNodes(_ context.Context, req *registryv1.ListNodesRequest) (*registryv1.ListNodesResponse, error) {
	d.ask(req)
	return &registryv1.ListNodesResponse{}, nil
}

func (d *datacenter) UpdateChecks(_ context.Context, req *registryv1.UpdateChecksRequest) (*registryv1.UpdateChecksResponse, error) {
	d.ask(req)
	return &registryv1.UpdateChecksResponse{}, nil
}

func TestTheCatalogueOverREST(t *testing.T) {
	d, r := newEdge(t)
	client := r.rest(t, true)
	critical := []registryv1.HealthStatus{registryv1.HealthStatus_HEALTH_STATUS_WARNING, registryv1.HealthStatus_HEALTH_STATUS_CRITICAL}
	for _, path := range []string{"/api/v1/catalog/services?tags[x]=a", "/api/v1/catalog/services?meat[x]=a", "/api/v1/catalog/services?meta[x=a"} {
		got := client.do(t, http.MethodGet, path, nil)
		require.Equal(t, http.StatusBadRequest, got.status, "%s: %s", path, got.body)
	}
	for call, want := range map[string]proto.Message{
		`PUT /api/v1/catalog/nodes {"node":{"name":"n1","address":"10.0.0.1","liveness_ttl":"30s"},"services":[{"service":{"name":"api","weights":{"passing":3}},"checks":[{"id":"http","ttl":"15s"}]}]}`: &registryv1.RegisterNodeRequest{
			Node: &registryv1.Node{Name: "n1", Address: "10.0.0.1", LivenessTtl: durationpb.New(30 * time.Second)},
			Services: []*registryv1.ServiceRegistration{{
				Service: &registryv1.Service{Name: "api", Weights: &registryv1.Weights{Passing: 3}}, Checks: []*registryv1.Check{{Id: "http", Ttl: durationpb.New(15 * time.Second)}},
			}},
		},
		`DELETE /api/v1/catalog/nodes/n1?datacenter=us-west`: &registryv1.DeregisterNodeRequest{Node: "n1", Datacenter: "us-west"},
		`GET /api/v1/catalog/nodes/n1?index=7&wait=1s`:       &registryv1.GetNodeRequest{Node: "n1", Index: 7, Wait: durationpb.New(time.Second)},
		`GET /api/v1/catalog/instances/api-1`:                &registryv1.GetServiceRequest{ServiceId: "api-1"},
		`GET /api/v1/catalog/nodes?meta[rack]=a1&statuses=HEALTH_STATUS_WARNING&statuses=HEALTH_STATUS_CRITICAL&filter=Name%20matches%20%22w%22`: &registryv1.ListNodesRequest{
			Meta: map[string]string{"rack": "a1"}, Statuses: critical, Filter: `Name matches "w"`,
		},
		`GET /api/v1/catalog/services?tags=a&tags=b&meta[v.x]=1&node_meta[rack]=a1&filter=Status==passing`: &registryv1.ListServicesRequest{
			Tags: []string{"a", "b"}, Meta: map[string]string{"v.x": "1"}, NodeMeta: map[string]string{"rack": "a1"}, Filter: "Status==passing",
		},
		`PUT /api/v1/catalog/heartbeats {"nodes":["n1","n2"]}`:                             &registryv1.HeartbeatRequest{Nodes: []string{"n1", "n2"}},
		`PUT /api/v1/catalog/maintenance {"node":"n1","enabled":true,"reason":"new disk"}`: &registryv1.SetMaintenanceRequest{Node: "n1", Enabled: true, Reason: "new disk"},
		`PUT /api/v1/health/checks {"updates":[{"node":"n1","check_id":"disk","status":"HEALTH_STATUS_WARNING"}]}`: &registryv1.UpdateChecksRequest{
			Updates: []*registryv1.CheckUpdate{{Node: "n1", CheckId: "disk", Status: registryv1.HealthStatus_HEALTH_STATUS_WARNING}},
		},
		`GET /api/v1/health/checks?node=n1&check_id=_maintenance`: &registryv1.ListChecksRequest{Node: "n1", CheckId: "_maintenance"},
		`DELETE /api/v1/health/checks/disk?node=n1`:               &registryv1.DeregisterCheckRequest{CheckId: "disk", Node: "n1"},
	} {
		method, rest, _ := strings.Cut(call, " ")
		path, body, _ := strings.Cut(rest, " ")
		got := client.do(t, method, path, strings.NewReader(body), "Content-Type", "application/json")
		require.Equal(t, http.StatusOK, got.status, "%s: %s", call, got.body)
		d.mu.Lock()
		last := proto.Clone(d.asked[len(d.asked)-1])
		d.mu.Unlock()
		if field := last.ProtoReflect().Descriptor().Fields().ByName("request_id"); field != nil {
			last.ProtoReflect().Clear(field)
		}
		require.Empty(t, cmp.Diff(want, last, protocmp.Transform()), call)
	}
}
