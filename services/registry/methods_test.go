package registry

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/method"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	optionsv1 "konsul.dev/proto/gen/konsul/options/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/catalog"
	"konsul.dev/services/registry/internal/replication"
	"konsul.dev/services/registry/internal/watching"
)

// TestEveryServedMethodSaysWhatItIs fails when a method is served of which the contract says
// nothing, or has one that nobody serves.
func TestEveryServedMethodSaysWhatItIs(t *testing.T) {
	server := grpc.NewServer()
	(&Service{state: &state{}, deps: Deps{Telemetry: obs.Discard()}}).register(server, nil)
	(&watching.Service{}).Register(server)
	(&replication.Service{}).Register(server)
	access, err := rpc.AccessOf(Name, true)
	require.NoError(t, err)
	routes, rules, err := methods(acl.NewView(clock.System()), catalog.NewView("dc1"))
	require.NoError(t, err)
	served := map[string]bool{}
	for service, info := range server.GetServiceInfo() {
		for _, m := range info.Methods {
			name := "/" + service + "/" + m.Name
			served[name] = true
			require.Contains(t, access, name)
			require.Contains(t, rules, name)
		}
	}
	for name := range access {
		if strings.HasPrefix(name, "/konsul.") { // Tests have contracts of their own.
			require.True(t, served[name], "nobody serves %s", name)
		}
	}
	for name := range routes {
		require.Contains(t, access, name)
	}
}

type knows map[string]string

func (k knows) ServicesOn(node string) []string {
	if node == "full" {
		return []string{"api", "web"}
	}
	return nil
}

func (k knows) ServiceName(id string) (string, bool) { name, ok := k[id]; return name, ok }

func TestNeeds(t *testing.T) {
	_, rules, err := methods(acl.NewView(clock.System()), knows{"web-1": "web", "api": "api"})
	require.NoError(t, err)
	service := func(id, name string) *registryv1.RegisterRequest {
		return &registryv1.RegisterRequest{Node: &registryv1.Node{Name: "n1"}, Service: &registryv1.Service{Id: id, Name: name}}
	}
	for name, c := range map[string]struct {
		method string
		req    any
		want   []string
	}{
		"bare read":         {registryv1.KVService_Get_FullMethodName, &registryv1.GetRequest{Key: "a/b"}, []string{"kv:read on a/b"}},
		"global read":       {registryv1.KVService_Get_FullMethodName, &registryv1.GetRequest{Key: "a", Scope: registryv1.Scope_SCOPE_GLOBAL}, []string{"kv:read on global/a"}},
		"bare write":        {registryv1.KVService_Set_FullMethodName, &registryv1.SetRequest{Key: "a"}, []string{"kv:write on local/a"}},
		"global write":      {registryv1.KVService_Set_FullMethodName, &registryv1.SetRequest{Key: "global/a"}, []string{"kv:write on global/a"}},
		"delete":            {registryv1.KVService_Delete_FullMethodName, &registryv1.DeleteRequest{Key: "a"}, []string{"kv:delete on local/a"}},
		"recursive delete":  {registryv1.KVService_Delete_FullMethodName, &registryv1.DeleteRequest{Key: "a/", Recurse: true}, []string{"kv:delete on everything below local/a/"}},
		"query":             {registryv1.CatalogService_QueryService_FullMethodName, &registryv1.QueryServiceRequest{Service: "web"}, []string{"service:read on web"}},
		"register node":     {registryv1.CatalogService_Register_FullMethodName, &registryv1.RegisterRequest{Node: &registryv1.Node{Name: "n1"}}, []string{"node:write on n1"}},
		"register":          {registryv1.CatalogService_Register_FullMethodName, service("web-2", "web"), []string{"node:write on n1", "service:write on web"}},
		"take over":         {registryv1.CatalogService_Register_FullMethodName, service("web-1", "mine"), []string{"node:write on n1", "service:write on mine", "service:write on web"}},
		"take over by name": {registryv1.CatalogService_Register_FullMethodName, service("api", "mine"), []string{"node:write on n1", "service:write on mine", "service:write on api"}},
		"deregister":        {registryv1.CatalogService_Deregister_FullMethodName, &registryv1.DeregisterRequest{ServiceId: "web-1"}, []string{"service:delete on web"}},
		"deregister ghost":  {registryv1.CatalogService_Deregister_FullMethodName, &registryv1.DeregisterRequest{ServiceId: "ghost"}, []string{"service:delete on ghost"}},
		"checks": {registryv1.CatalogService_UpdateChecks_FullMethodName, &registryv1.UpdateChecksRequest{Updates: []*registryv1.CheckUpdate{{ServiceId: "web-1"}, {ServiceId: "api"}}}, []string{
			"service:write on web", "service:write on api",
		}},
		"node check": {registryv1.CatalogService_UpdateChecks_FullMethodName, &registryv1.UpdateChecksRequest{Updates: []*registryv1.CheckUpdate{{Node: "n1"}}}, []string{"node:write on n1"}},
		"register many": {registryv1.CatalogService_RegisterNode_FullMethodName, &registryv1.RegisterNodeRequest{
			Node: &registryv1.Node{Name: "n1"}, Services: []*registryv1.ServiceRegistration{{Service: &registryv1.Service{Name: "db"}}, {Service: &registryv1.Service{Id: "web-1", Name: "mine"}}},
		}, []string{"node:write on n1", "service:write on db", "service:write on mine", "service:write on web"}},
		"deregister node":   {registryv1.CatalogService_DeregisterNode_FullMethodName, &registryv1.DeregisterNodeRequest{Node: "full"}, []string{"node:delete on full", "service:delete on api", "service:delete on web"}},
		"deregister check":  {registryv1.CatalogService_DeregisterCheck_FullMethodName, &registryv1.DeregisterCheckRequest{ServiceId: "web-1"}, []string{"service:write on web"}},
		"heartbeat":         {registryv1.CatalogService_Heartbeat_FullMethodName, &registryv1.HeartbeatRequest{Nodes: []string{"a", "b"}}, []string{"node:write on a", "node:write on b"}},
		"maintain node":     {registryv1.CatalogService_SetMaintenance_FullMethodName, &registryv1.SetMaintenanceRequest{Node: "n1"}, []string{"node:write on n1"}},
		"maintain instance": {registryv1.CatalogService_SetMaintenance_FullMethodName, &registryv1.SetMaintenanceRequest{ServiceId: "web-1"}, []string{"service:write on web"}},
		"get instance":      {registryv1.CatalogService_GetService_FullMethodName, &registryv1.GetServiceRequest{ServiceId: "web-1"}, []string{"service:read on web"}},
		"get node":          {registryv1.CatalogService_GetNode_FullMethodName, &registryv1.GetNodeRequest{Node: "n1"}, []string{"node:read on n1"}},
		"status":            {registryv1.OperatorService_ClusterStatus_FullMethodName, &registryv1.ClusterStatusRequest{}, []string{"operator:read on cluster"}},
		"federation":        {federationv1.FederationService_GetFederation_FullMethodName, &federationv1.GetFederationRequest{}, []string{"federation:read"}},
		"internal":          {registryv1.ProposalService_Propose_FullMethodName, &registryv1.ProposeRequest{}, []string{"acl:write on internal"}},
	} {
		t.Run(name, func(t *testing.T) {
			needs, err := rules[c.method].Needs(t.Context(), c.req)
			require.NoError(t, err)
			var got []string
			for _, n := range needs {
				got = append(got, n.String())
			}
			require.Equal(t, c.want, got)
		})
	}
}

// What no token opens stays shut even to one whose policies allow every resource there is.
func TestNoPolicyOpensWhatIsForPrograms(t *testing.T) {
	_, rules, err := methods(acl.NewView(clock.System()), knows{})
	require.NoError(t, err)
	served, err := method.Served(Name)
	require.NoError(t, err)
	for _, m := range served {
		if m.GetUsers() == optionsv1.Users_USERS_WITH_TOKEN {
			continue
		}
		needs, err := rules[m.FullName].Needs(t.Context(), m.NewRequest())
		require.NoError(t, err)
		require.NotEmpty(t, needs, m.FullName)
		require.Equal(t, acl.ACL, needs[0].Resource, m.FullName)
	}
}
