package registry

import (
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/forward"
	"konsul.dev/services/registry/internal/record"
)

// routes says of every unary method which server answers it.
func routes() forward.Routes {
	area := func(name string) func(any) string { return func(any) string { return name } }
	always := func(any) bool { return true }
	return forward.Routes{
		registryv1.KVService_Get_FullMethodName:    {Kind: forward.Read, Reply: forward.To[registryv1.GetResponse](), Service: area("kv")},
		registryv1.KVService_List_FullMethodName:   {Kind: forward.Read, Reply: forward.To[registryv1.ListResponse](), Service: area("kv")},
		registryv1.KVService_Set_FullMethodName:    {Kind: forward.Write, Reply: forward.To[registryv1.SetResponse](), Service: area("kv"), Primary: globalKey},
		registryv1.KVService_Delete_FullMethodName: {Kind: forward.Write, Reply: forward.To[registryv1.DeleteResponse](), Service: area("kv"), Primary: globalKey},

		registryv1.CatalogService_Register_FullMethodName:          {Kind: forward.Write, Reply: forward.To[registryv1.RegisterResponse](), Service: area("catalog")},
		registryv1.CatalogService_Deregister_FullMethodName:        {Kind: forward.Write, Reply: forward.To[registryv1.DeregisterResponse](), Service: area("catalog")},
		registryv1.CatalogService_UpdateChecks_FullMethodName:      {Kind: forward.Write, Reply: forward.To[registryv1.UpdateChecksResponse](), Service: area("catalog")},
		registryv1.CatalogService_ListServices_FullMethodName:      {Kind: forward.Read, Reply: forward.To[registryv1.ListServicesResponse](), Service: area("catalog")},
		registryv1.CatalogService_ListNodes_FullMethodName:         {Kind: forward.Read, Reply: forward.To[registryv1.ListNodesResponse](), Service: area("catalog")},
		registryv1.CatalogService_QueryService_FullMethodName:      {Kind: forward.Read, Reply: forward.To[registryv1.QueryServiceResponse](), Service: queried},
		registryv1.CatalogService_SetFailoverPolicy_FullMethodName: {Kind: forward.Write, Reply: forward.To[registryv1.SetFailoverPolicyResponse](), Service: area("catalog"), Primary: always},
		registryv1.CatalogService_GetFailoverPolicy_FullMethodName: {Kind: forward.Read, Reply: forward.To[registryv1.GetFailoverPolicyResponse](), Service: area("catalog")},

		registryv1.OperatorService_ClusterStatus_FullMethodName: {Kind: forward.Anywhere, Reply: forward.To[registryv1.ClusterStatusResponse](), Service: area("operator")},

		registryv1.TrustService_PutJoinToken_FullMethodName:    {Kind: forward.Write, Reply: forward.To[registryv1.PutJoinTokenResponse]()},
		registryv1.TrustService_AdmitDatacenter_FullMethodName: {Kind: forward.Write, Reply: forward.To[registryv1.AdmitDatacenterResponse]()},
		registryv1.TrustService_GetJoinToken_FullMethodName:    {Kind: forward.Read, Reply: forward.To[registryv1.GetJoinTokenResponse]()},
		registryv1.TrustService_PublishRoots_FullMethodName:    {Kind: forward.Write, Reply: forward.To[registryv1.PublishRootsResponse]()},

		federationv1.ReplicationService_ApplyReplicated_FullMethodName: {Kind: forward.Write, Reply: forward.To[federationv1.ApplyReplicatedResponse]()},
		federationv1.ReplicationService_GetCursor_FullMethodName:       {Kind: forward.Read, Reply: forward.To[federationv1.GetCursorResponse]()},
	}
}

// globalKey says whether a KV write is global; a malformed one is refused where it came in.
func globalKey(req any) bool {
	r, ok := req.(interface {
		GetKey() string
		GetScope() registryv1.Scope
	})
	if !ok {
		return false
	}
	key, err := record.ParseKey(r.GetKey(), r.GetScope())
	return err == nil && key.Write() == registryv1.Scope_SCOPE_GLOBAL
}

// queried answers the service a query asks for, if it can be one: labels must not grow with nonsense.
func queried(req any) string {
	const longest = 63
	if r, ok := req.(*registryv1.QueryServiceRequest); ok && len(r.GetService()) <= longest {
		return r.GetService()
	}
	return "catalog"
}
