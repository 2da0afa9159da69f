package command_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

func TestCatalogueCommandsAskTheRightThing(t *testing.T) {
	statuses := []registryv1.HealthStatus{registryv1.HealthStatus_HEALTH_STATUS_WARNING, commandtest.Critical}
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
		"check update http --instance api-1 --status passing --note fine": update(&registryv1.CheckUpdate{ServiceId: "api-1", CheckId: "http", Status: commandtest.Passing, Output: "fine"}),
		"check pass http --instance api-1":                                update(&registryv1.CheckUpdate{ServiceId: "api-1", CheckId: "http", Status: commandtest.Passing}),
		"check warn disk --node web-1":                                    update(&registryv1.CheckUpdate{Node: "web-1", CheckId: "disk", Status: registryv1.HealthStatus_HEALTH_STATUS_WARNING}),
		"check fail disk --node web-1 --note full":                        update(&registryv1.CheckUpdate{Node: "web-1", CheckId: "disk", Status: commandtest.Critical, Output: "full"}),
		"check deregister disk --node web-1":                              &registryv1.DeregisterCheckRequest{CheckId: "disk", Node: "web-1"},
		"maintenance enable --node web-1 --reason now":                    &registryv1.SetMaintenanceRequest{Node: "web-1", Enabled: true, Reason: "now"},
		"maint disable --instance api-1":                                  &registryv1.SetMaintenanceRequest{ServiceId: "api-1"},
		"maintenance status --service api":                                &registryv1.ListChecksRequest{CheckId: "_maintenance", Service: "api"},
	} {
		t.Run(line, func(t *testing.T) {
			gateway := commandtest.Federation(t)
			r := commandtest.Ctl(t, gateway, "", commandtest.AsArguments(line)...)
			require.Zero(t, r.Code, r.Stderr)
			require.Len(t, gateway.Requests(), 1)
			commandtest.Same(t, want, withoutRequestID(gateway.Requests()[0]))
		})
	}
}

// withoutRequestID returns a request as it was before the SDK gave it an id.
func withoutRequestID(m proto.Message) proto.Message {
	m = proto.Clone(m)
	if field := m.ProtoReflect().Descriptor().Fields().ByName("request_id"); field != nil {
		m.ProtoReflect().Clear(field)
	}
	return m
}

func TestCatalogueCommandsExitCodes(t *testing.T) {
	gateway := commandtest.Federation(t)
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
			r := commandtest.Ctl(t, gateway, "", commandtest.AsArguments(line)...)
			require.Equal(t, code, r.Code, r.Stderr)
		})
	}
}
