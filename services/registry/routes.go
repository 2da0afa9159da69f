package registry

import (
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/api"
	"konsul.dev/services/registry/internal/forward"
	"konsul.dev/services/registry/internal/kv"
	"konsul.dev/services/registry/internal/record"
)

// routes says of every unary method which server answers it.
func routes(tokens localTokens) forward.Routes {
	area := func(name string) func(any) string { return func(any) string { return name } }
	always := func(any) bool { return true }
	return forward.Routes{
		registryv1.KVService_Get_FullMethodName:    {Kind: forward.Read, Reply: forward.To[registryv1.GetResponse](), Service: area("kv")},
		registryv1.KVService_List_FullMethodName:   {Kind: forward.Read, Reply: forward.To[registryv1.ListResponse](), Service: area("kv")},
		registryv1.KVService_Set_FullMethodName:    {Kind: forward.Proposal, Reply: forward.To[registryv1.SetResponse](), Service: area("kv"), Primary: globalKey},
		registryv1.KVService_Delete_FullMethodName: {Kind: forward.Proposal, Reply: forward.To[registryv1.DeleteResponse](), Service: area("kv"), Primary: globalKey},
		registryv1.KVService_Batch_FullMethodName:  {KindOf: batched, Reply: forward.To[registryv1.BatchResponse](), Service: area("kv")},

		registryv1.KVService_Txn_FullMethodName:     {Kind: forward.Proposal, Reply: forward.To[registryv1.TxnResponse](), Service: area("kv"), Primary: globalTxn},
		registryv1.KVService_History_FullMethodName: {Kind: forward.Read, Reply: forward.To[registryv1.HistoryResponse](), Service: area("kv")},

		// How long a lease has to go is in the leader's memory, and so is who waits for a lock.
		registryv1.LeaseService_Grant_FullMethodName:     {Kind: forward.Write, Reply: forward.To[registryv1.GrantLeaseResponse](), Service: area("lease")},
		registryv1.LeaseService_KeepAlive_FullMethodName: {Kind: forward.Write, Reply: forward.To[registryv1.KeepLeaseAliveResponse](), Service: area("lease")},
		registryv1.LeaseService_Revoke_FullMethodName:    {Kind: forward.Write, Reply: forward.To[registryv1.RevokeLeaseResponse](), Service: area("lease")},
		registryv1.LeaseService_Get_FullMethodName:       {Kind: forward.Write, Reply: forward.To[registryv1.GetLeaseResponse](), Service: area("lease")},
		registryv1.LeaseService_List_FullMethodName:      {Kind: forward.Write, Reply: forward.To[registryv1.ListLeasesResponse](), Service: area("lease")},
		registryv1.LockService_Acquire_FullMethodName:    {Kind: forward.Write, Reply: forward.To[registryv1.AcquireLockResponse](), Service: area("lock")},
		registryv1.LockService_Release_FullMethodName:    {Kind: forward.Proposal, Reply: forward.To[registryv1.ReleaseLockResponse](), Service: area("lock")},
		registryv1.LockService_Get_FullMethodName:        {Kind: forward.Read, Reply: forward.To[registryv1.GetLockResponse](), Service: area("lock")},
		registryv1.LockService_List_FullMethodName:       {Kind: forward.Read, Reply: forward.To[registryv1.ListLocksResponse](), Service: area("lock")},

		registryv1.CatalogService_Register_FullMethodName:          {Kind: forward.Write, Reply: forward.To[registryv1.RegisterResponse](), Service: area("catalog")},
		registryv1.CatalogService_Deregister_FullMethodName:        {Kind: forward.Write, Reply: forward.To[registryv1.DeregisterResponse](), Service: area("catalog")},
		registryv1.CatalogService_UpdateChecks_FullMethodName:      {Kind: forward.Write, Reply: forward.To[registryv1.UpdateChecksResponse](), Service: area("catalog")},
		registryv1.CatalogService_RegisterNode_FullMethodName:      {Kind: forward.Write, Reply: forward.To[registryv1.RegisterNodeResponse](), Service: area("catalog")},
		registryv1.CatalogService_DeregisterNode_FullMethodName:    {Kind: forward.Write, Reply: forward.To[registryv1.DeregisterNodeResponse](), Service: area("catalog")},
		registryv1.CatalogService_DeregisterCheck_FullMethodName:   {Kind: forward.Write, Reply: forward.To[registryv1.DeregisterCheckResponse](), Service: area("catalog")},
		registryv1.CatalogService_Heartbeat_FullMethodName:         {Kind: forward.Write, Reply: forward.To[registryv1.HeartbeatResponse](), Service: area("catalog")},
		registryv1.CatalogService_SetMaintenance_FullMethodName:    {Kind: forward.Write, Reply: forward.To[registryv1.SetMaintenanceResponse](), Service: area("catalog")},
		registryv1.CatalogService_GetService_FullMethodName:        {Kind: forward.Read, Reply: forward.To[registryv1.GetServiceResponse](), Service: area("catalog")},
		registryv1.CatalogService_GetNode_FullMethodName:           {Kind: forward.Read, Reply: forward.To[registryv1.GetNodeResponse](), Service: area("catalog")},
		registryv1.CatalogService_ListChecks_FullMethodName:        {Kind: forward.Read, Reply: forward.To[registryv1.ListChecksResponse](), Service: area("catalog")},
		registryv1.CatalogService_ListServices_FullMethodName:      {Kind: forward.Read, Reply: forward.To[registryv1.ListServicesResponse](), Service: area("catalog")},
		registryv1.CatalogService_ListNodes_FullMethodName:         {Kind: forward.Read, Reply: forward.To[registryv1.ListNodesResponse](), Service: area("catalog")},
		registryv1.CatalogService_QueryService_FullMethodName:      {Kind: forward.Read, Reply: forward.To[registryv1.QueryServiceResponse](), Service: queried, Found: answered},
		registryv1.CatalogService_SetFailoverPolicy_FullMethodName: {Kind: forward.Write, Reply: forward.To[registryv1.SetFailoverPolicyResponse](), Service: area("catalog"), Primary: always},
		registryv1.CatalogService_GetFailoverPolicy_FullMethodName: {Kind: forward.Read, Reply: forward.To[registryv1.GetFailoverPolicyResponse](), Service: area("catalog")},

		registryv1.OperatorService_ClusterStatus_FullMethodName: {Kind: forward.Anywhere, Reply: forward.To[registryv1.ClusterStatusResponse](), Service: area("operator")},

		// The leader knows what the autopilot thinks and carries out changes of membership: reads and proposals would not do.
		registryv1.OperatorService_AddPeer_FullMethodName:    {Kind: forward.Write, Reply: forward.To[registryv1.AddPeerResponse](), Service: area("operator")},
		registryv1.OperatorService_RemovePeer_FullMethodName: {Kind: forward.Write, Reply: forward.To[registryv1.RemovePeerResponse](), Service: area("operator")},
		registryv1.OperatorService_TransferLeadership_FullMethodName: {
			Kind: forward.Write, Reply: forward.To[registryv1.TransferLeadershipResponse](), Service: area("operator"), Note: func(req any, leader string) {
				if r, ok := req.(*registryv1.TransferLeadershipRequest); ok && r.GetFrom() == "" {
					r.From = leader
				}
			},
		},
		registryv1.OperatorService_GetAutopilotState_FullMethodName:  {Kind: forward.Write, Reply: forward.To[registryv1.GetAutopilotStateResponse](), Service: area("operator")},
		registryv1.OperatorService_SetAutopilotConfig_FullMethodName: {Kind: forward.Write, Reply: forward.To[registryv1.SetAutopilotConfigResponse](), Service: area("operator")},
		registryv1.OperatorService_GetAutopilotConfig_FullMethodName: {Kind: forward.Read, Reply: forward.To[registryv1.GetAutopilotConfigResponse](), Service: area("operator")},
		registryv1.BackupService_ListBackups_FullMethodName:          {Kind: forward.Anywhere, Reply: forward.To[registryv1.ListBackupsResponse](), Service: area("backup")},
		registryv1.MemberService_Join_FullMethodName:                 {Kind: forward.Write, Reply: forward.To[registryv1.JoinResponse]()},
		registryv1.MemberService_Announce_FullMethodName:             {Kind: forward.Write, Reply: forward.To[registryv1.AnnounceResponse]()},

		registryv1.ACLService_Bootstrap_FullMethodName:    {Kind: forward.Write, Named: true, Reply: forward.To[registryv1.BootstrapResponse](), Service: area("acl"), Primary: always},
		registryv1.ACLService_CreatePolicy_FullMethodName: {Kind: forward.Write, Reply: forward.To[registryv1.CreatePolicyResponse](), Service: area("acl"), Primary: always},
		registryv1.ACLService_UpdatePolicy_FullMethodName: {Kind: forward.Write, Reply: forward.To[registryv1.UpdatePolicyResponse](), Service: area("acl"), Primary: always},
		registryv1.ACLService_DeletePolicy_FullMethodName: {Kind: forward.Write, Reply: forward.To[registryv1.DeletePolicyResponse](), Service: area("acl"), Primary: always},
		registryv1.ACLService_GetPolicy_FullMethodName:    {Kind: forward.Read, Reply: forward.To[registryv1.GetPolicyResponse](), Service: area("acl")},
		registryv1.ACLService_ListPolicies_FullMethodName: {Kind: forward.Read, Reply: forward.To[registryv1.ListPoliciesResponse](), Service: area("acl")},
		registryv1.ACLService_CreateRole_FullMethodName:   {Kind: forward.Write, Reply: forward.To[registryv1.CreateRoleResponse](), Service: area("acl"), Primary: always},
		registryv1.ACLService_UpdateRole_FullMethodName:   {Kind: forward.Write, Reply: forward.To[registryv1.UpdateRoleResponse](), Service: area("acl"), Primary: always},
		registryv1.ACLService_DeleteRole_FullMethodName:   {Kind: forward.Write, Reply: forward.To[registryv1.DeleteRoleResponse](), Service: area("acl"), Primary: always},
		registryv1.ACLService_GetRole_FullMethodName:      {Kind: forward.Read, Reply: forward.To[registryv1.GetRoleResponse](), Service: area("acl")},
		registryv1.ACLService_ListRoles_FullMethodName:    {Kind: forward.Read, Reply: forward.To[registryv1.ListRolesResponse](), Service: area("acl")},
		registryv1.ACLService_CreateToken_FullMethodName:  {Kind: forward.Write, Named: true, Reply: forward.To[registryv1.CreateTokenResponse](), Service: area("acl"), Primary: globalToken(tokens)},
		registryv1.ACLService_UpdateToken_FullMethodName:  {Kind: forward.Write, Reply: forward.To[registryv1.UpdateTokenResponse](), Service: area("acl"), Primary: globalToken(tokens)},
		registryv1.ACLService_CloneToken_FullMethodName:   {Kind: forward.Write, Named: true, Reply: forward.To[registryv1.CloneTokenResponse](), Service: area("acl"), Primary: globalToken(tokens)},
		registryv1.ACLService_DeleteToken_FullMethodName:  {Kind: forward.Write, Reply: forward.To[registryv1.DeleteTokenResponse](), Service: area("acl"), Primary: globalToken(tokens)},
		registryv1.ACLService_GetToken_FullMethodName:     {Kind: forward.Read, Reply: forward.To[registryv1.GetTokenResponse](), Service: area("acl")},
		registryv1.ACLService_GetSelf_FullMethodName:      {Kind: forward.Anywhere, Reply: forward.To[registryv1.GetSelfResponse](), Service: area("acl")},
		registryv1.ACLService_ListTokens_FullMethodName:   {Kind: forward.Read, Reply: forward.To[registryv1.ListTokensResponse](), Service: area("acl")},
		registryv1.ACLService_Explain_FullMethodName:      {Kind: forward.Read, Reply: forward.To[registryv1.ExplainResponse](), Service: area("acl")},

		registryv1.TrustService_PutJoinToken_FullMethodName:    {Kind: forward.Write, Reply: forward.To[registryv1.PutJoinTokenResponse]()},
		registryv1.TrustService_AdmitDatacenter_FullMethodName: {Kind: forward.Write, Named: true, Reply: forward.To[registryv1.AdmitDatacenterResponse]()},
		registryv1.TrustService_GetJoinToken_FullMethodName:    {Kind: forward.Read, Reply: forward.To[registryv1.GetJoinTokenResponse]()},
		registryv1.TrustService_PublishRoots_FullMethodName:    {Kind: forward.Write, Reply: forward.To[registryv1.PublishRootsResponse]()},

		federationv1.ReplicationService_ApplyReplicated_FullMethodName: {Kind: forward.Write, Reply: forward.To[federationv1.ApplyReplicatedResponse]()},
		federationv1.ReplicationService_GetCursor_FullMethodName:       {Kind: forward.Read, Reply: forward.To[federationv1.GetCursorResponse]()},
	}
}

// batched says how a batch of key-value calls travels.
func batched(req any) forward.Kind {
	if r, ok := req.(*registryv1.BatchRequest); ok && api.ReadsOnly(r) {
		return forward.Read
	}
	return forward.Proposal
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

// globalTxn says whether a transaction writes global keys.
func globalTxn(req any) bool {
	r, ok := req.(*registryv1.TxnRequest)
	return ok && kv.TxnGlobal(r)
}

// localTokens knows which tokens are this datacenter's alone.
type localTokens interface {
	Local(accessor string) bool
}

// globalToken says whether a change is of a global token. One that names a datacenter is for a local
// token there.
func globalToken(tokens localTokens) func(any) bool {
	return func(req any) bool {
		switch r := req.(type) {
		case *registryv1.CreateTokenRequest:
			return !r.GetLocal()
		case interface {
			GetAccessorId() string
			GetDatacenter() string
		}:
			return r.GetDatacenter() == "" && !tokens.Local(r.GetAccessorId())
		}
		return false
	}
}

// queried returns the service that a query asks for.
func queried(req any) string {
	r, _ := req.(*registryv1.QueryServiceRequest)
	return r.GetService()
}

// answered reports whether a query found the service.
func answered(reply any) bool {
	r, _ := reply.(*registryv1.QueryServiceResponse)
	return len(r.GetInstances()) > 0
}
