package restedge

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	failoverrouterv1 "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"
)

// The contracts decide which calls the edge lets through and what it asks of the registry about
// them.
func TestWhatPublicMethodsOfServicesWithoutTokensTake(t *testing.T) {
	for server, methods := range map[string]map[string]struct {
		request proto.Message
		want    string
	}{
		caServer: {
			cav1.CertificateService_GetTrustBundle_FullMethodName:  {&cav1.GetTrustBundleRequest{}, ""},
			cav1.CertificateService_CreateJoinToken_FullMethodName: {&cav1.CreateJoinTokenRequest{Datacenter: "dc2"}, "federation:write on dc2"},
		},
		gossipServer: {
			wangossipv1.DatacenterService_ListDatacenters_FullMethodName:  {&wangossipv1.ListDatacentersRequest{}, "federation:read on "},
			wangossipv1.DatacenterService_WatchDatacenters_FullMethodName: {&wangossipv1.WatchDatacentersRequest{}, "federation:read on "},
		},
		routerServer: {
			failoverrouterv1.RouterService_Resolve_FullMethodName: {&failoverrouterv1.ResolveRequest{Service: "api"}, "service:read on api"},
			failoverrouterv1.RouterService_WatchResolve_FullMethodName: {
				&failoverrouterv1.WatchResolveRequest{Request: &failoverrouterv1.ResolveRequest{Service: "api"}}, "service:read on api",
			},
		},
	} {
		rules, err := permissions(server)
		require.NoError(t, err)
		for name, want := range methods {
			rule, ok := rules[name]
			require.True(t, ok, name)
			var got string
			for _, n := range rule.needed(want.request) {
				got += n.GetResource() + ":" + n.GetAccess() + " on " + n.GetName()
			}
			require.Equal(t, want.want, got, name)
			require.Equal(t, name == cav1.CertificateService_CreateJoinToken_FullMethodName, rule.GetAudited(), name)
		}
	}
}

func TestPublicMethods(t *testing.T) {
	public, err := Conns{}.public()
	require.NoError(t, err)
	for method, want := range map[string]bool{
		"/konsul.registry.v1.KVService/Get":                         true,
		"/konsul.registry.v1.WatchService/Watch":                    true,
		"/konsul.registry.v1.ACLService/Bootstrap":                  true,
		"/konsul.registry.v1.KVService/NewerThanThisGateway":        true,
		"/konsul.replicator.v1.StatusService/GetStatus":             true,
		"/konsul.federation.v1.FederationService/GetFederation":     true,
		"/konsul.federation.v1.ReplicationService/Replicate":        false,
		"/konsul.registry.v1.TrustService/PutJoinToken":             false,
		"/konsul.registry.v1.TokenService/AuthorizeToken":           false,
		"/konsul.registry.v1.ProposalService/Propose":               false,
		"/konsul.registry.v1.MemberService/Join":                    false,
		"/konsul.ca.v1.CertificateService/GetTrustBundle":           true,
		"/konsul.ca.v1.CertificateService/Renew":                    false,
		"/konsul.ca.v1.CertificateService/GetGossipKey":             false,
		"/konsul.ca.v1.EnrollmentService/Enroll":                    false,
		"/konsul.failoverrouter.v1.RouterService/Resolve":           true,
		"/konsul.failoverrouter.v1.RouterService/NewerThanTheRules": false,
		"/konsul.wangossip.v1.DatacenterService/ListDatacenters":    true,
	} {
		_, served := public.of(method)
		require.Equal(t, want, served, method)
	}
}
