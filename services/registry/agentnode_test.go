package registry_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry"
	"konsul.dev/services/registry/registrytest"
)

// An agent acts for the node in its certificate, on whatever server its call comes in.
func TestAnAgentActsForItsOwnNode(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	people := c.Client(c.Leader())
	register(t, people, "web-1", "api-1", "api")
	register(t, people, "web-2", "api-2", "api")

	for at, server := range map[string]*registrytest.Server{"the leader": c.Leader(), "a follower": c.Follower()} {
		id := c.CA.Source(c.DC, "agent").ID()
		id.Node = "web-1"
		agent := registrytest.NewClient(t, c.CA.SourceOf(id), c.DC, server.Address())
		update := func(u *registryv1.CheckUpdate) error {
			u.CheckId, u.Status = "http", registryv1.HealthStatus_HEALTH_STATUS_PASSING
			_, err := agent.Catalog.UpdateChecks(agent.Bare(), &registryv1.UpdateChecksRequest{Updates: []*registryv1.CheckUpdate{u}})
			return err
		}
		node := func(name string) *registryv1.Node { return &registryv1.Node{Name: name, Address: "192.0.2.1"} }
		for name, call := range map[string]struct {
			own, other func() error
		}{
			"checks": {
				own:   func() error { return update(&registryv1.CheckUpdate{ServiceId: "api-1"}) },
				other: func() error { return update(&registryv1.CheckUpdate{ServiceId: "api-2"}) },
			},
			"a node": {
				own: func() error {
					_, err := agent.Catalog.RegisterNode(agent.Bare(), &registryv1.RegisterNodeRequest{Node: node("web-1")})
					return err
				},
				other: func() error {
					_, err := agent.Catalog.RegisterNode(agent.Bare(), &registryv1.RegisterNodeRequest{Node: node("web-2")})
					return err
				},
			},
			"an instance": {
				own: func() error {
					_, err := agent.Catalog.Register(agent.Bare(), &registryv1.RegisterRequest{
						Node: node("web-1"), Service: &registryv1.Service{Id: "db-1", Name: "db", Port: 1},
					})
					return err
				},
				other: func() error {
					_, err := agent.Catalog.Register(agent.Bare(), &registryv1.RegisterRequest{
						Node: node("web-1"), Service: &registryv1.Service{Id: "api-2", Name: "api", Port: 1},
					})
					return err
				},
			},
			"a new instance elsewhere": {
				other: func() error {
					_, err := agent.Catalog.Register(agent.Bare(), &registryv1.RegisterRequest{
						Node: node("web-3"), Service: &registryv1.Service{Id: "new", Name: "new", Port: 1},
					})
					return err
				},
			},
			"a heartbeat": {
				other: func() error {
					_, err := agent.Catalog.Heartbeat(agent.Bare(), &registryv1.HeartbeatRequest{Nodes: []string{"web-1", "web-2"}})
					return err
				},
			},
			"maintenance": {
				other: func() error {
					_, err := agent.Catalog.SetMaintenance(agent.Bare(), &registryv1.SetMaintenanceRequest{Node: "web-2", Enabled: true})
					return err
				},
			},
			"an instance's end": {
				other: func() error {
					_, err := agent.Catalog.Deregister(agent.Bare(), &registryv1.DeregisterRequest{ServiceId: "api-2"})
					return err
				},
			},
			"a check's end": {
				other: func() error {
					_, err := agent.Catalog.DeregisterCheck(agent.Bare(), &registryv1.DeregisterCheckRequest{ServiceId: "api-2", CheckId: "http"})
					return err
				},
			},
			"a node's end": {
				other: func() error {
					_, err := agent.Catalog.DeregisterNode(agent.Bare(), &registryv1.DeregisterNodeRequest{Node: "web-2"})
					return err
				},
			},
		} {
			t.Run(name+" at "+at, func(t *testing.T) {
				if call.own != nil {
					require.NoError(t, call.own())
				}
				require.Equal(t, registry.ReasonNodeDenied, fault.ReasonOf(call.other()))
			})
		}
	}
	resp, err := people.Catalog.QueryService(people.Ctx(), &registryv1.QueryServiceRequest{Service: "api"})
	require.NoError(t, err)
	require.Len(t, resp.GetInstances(), 2, "what is another node's is as it was")
}
