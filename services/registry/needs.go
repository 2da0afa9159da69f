package registry

import (
	"cmp"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	replicatorv1 "konsul.dev/proto/gen/konsul/replicator/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/api"
)

// serviceNames knows the catalogue's names.
type serviceNames interface {
	// ServiceName answers the service an instance belongs to, false when the instance is not known.
	ServiceName(id string) (name string, known bool)
	// ServicesOn answers the services that have an instance on a node.
	ServicesOn(node string) []string
}

// nameOf answers the service of an instance. One that is not known is taken for a service of that name,
// which is what an instance without an id gets; what is asked of it will not be found.
func nameOf(services serviceNames, id string) string {
	if name, known := services.ServiceName(id); known {
		return name
	}
	return id
}

// needs says of every method which permissions a call takes. A method without Needs either is for
// services alone, which the access table says, or leaves out of its answer what the token may not see.
func needs(services serviceNames) api.Rules {
	rules := api.Rules{
		registryv1.KVService_Get_FullMethodName:    {Needs: of(api.NeedsOfGet)},
		registryv1.KVService_List_FullMethodName:   {}, // The rows are filtered.
		registryv1.KVService_Set_FullMethodName:    {Needs: of(api.NeedsOfSet)},
		registryv1.KVService_Delete_FullMethodName: {Needs: of(api.NeedsOfDelete)},
		registryv1.KVService_Batch_FullMethodName:  {}, // Each operation is checked as its own call would be.

		registryv1.KVService_Txn_FullMethodName: {Needs: func(req any) ([]acl.Need, error) {
			r, _ := req.(*registryv1.TxnRequest)
			return api.NeedsOfTxn(r)
		}},
		registryv1.KVService_History_FullMethodName: {Needs: of(api.NeedsOfHistory)},

		registryv1.LeaseService_Grant_FullMethodName: {Needs: of(func(r *registryv1.GrantLeaseRequest) []acl.Need {
			return api.NeedsOfLease(r.GetName(), acl.Write)
		})},
		registryv1.LeaseService_KeepAlive_FullMethodName: {}, // These ask for the name of the lease, which its row says.
		registryv1.LeaseService_Revoke_FullMethodName:    {},
		registryv1.LeaseService_Get_FullMethodName:       {},
		registryv1.LeaseService_List_FullMethodName:      {}, // The rows are filtered.

		registryv1.LockService_Acquire_FullMethodName: {Needs: of(func(r *registryv1.AcquireLockRequest) []acl.Need {
			return api.NeedsOfLock(r.GetName(), acl.Write)
		})},
		registryv1.LockService_Release_FullMethodName: {Needs: of(func(r *registryv1.ReleaseLockRequest) []acl.Need {
			return api.NeedsOfLock(r.GetName(), acl.Write)
		})},
		registryv1.LockService_Get_FullMethodName: {Needs: of(func(r *registryv1.GetLockRequest) []acl.Need {
			return api.NeedsOfLock(r.GetName(), acl.Read)
		})},
		registryv1.LockService_List_FullMethodName: {}, // The rows are filtered.

		registryv1.CatalogService_ListServices_FullMethodName: {}, // The rows are filtered.
		registryv1.CatalogService_ListNodes_FullMethodName:    {}, // The rows are filtered.
		registryv1.CatalogService_QueryService_FullMethodName: {Needs: of(func(r *registryv1.QueryServiceRequest) []acl.Need {
			return one(acl.Service, r.GetService(), acl.Read)
		})},
		registryv1.CatalogService_Register_FullMethodName: {Needs: of(func(r *registryv1.RegisterRequest) []acl.Need {
			return registering(services, r)
		})},
		registryv1.CatalogService_Deregister_FullMethodName: {Needs: of(func(r *registryv1.DeregisterRequest) []acl.Need {
			return one(acl.Service, nameOf(services, r.GetServiceId()), acl.Delete)
		})},
		registryv1.CatalogService_UpdateChecks_FullMethodName: {Needs: of(func(r *registryv1.UpdateChecksRequest) []acl.Need {
			out := make([]acl.Need, 0, len(r.GetUpdates()))
			for _, u := range r.GetUpdates() {
				out = append(out, checked(services, u.GetServiceId(), u.GetNode())...)
			}
			return out
		})},
		registryv1.CatalogService_RegisterNode_FullMethodName: {Needs: of(func(r *registryv1.RegisterNodeRequest) []acl.Need {
			out := one(acl.Node, r.GetNode().GetName(), acl.Write)
			for _, s := range r.GetServices() {
				out = append(out, taking(services, s.GetService())...)
			}
			return out
		})},
		registryv1.CatalogService_DeregisterNode_FullMethodName: {Needs: of(func(r *registryv1.DeregisterNodeRequest) []acl.Need {
			out := one(acl.Node, r.GetNode(), acl.Delete)
			for _, name := range services.ServicesOn(r.GetNode()) {
				out = append(out, acl.Need{Resource: acl.Service, Name: name, Access: acl.Delete})
			}
			return out
		})},
		registryv1.CatalogService_DeregisterCheck_FullMethodName: {Needs: of(func(r *registryv1.DeregisterCheckRequest) []acl.Need {
			return checked(services, r.GetServiceId(), r.GetNode())
		})},
		registryv1.CatalogService_Heartbeat_FullMethodName: {Needs: of(func(r *registryv1.HeartbeatRequest) []acl.Need {
			out := make([]acl.Need, 0, len(r.GetNodes()))
			for _, node := range r.GetNodes() {
				out = append(out, acl.Need{Resource: acl.Node, Name: node, Access: acl.Write})
			}
			return out
		})},
		registryv1.CatalogService_SetMaintenance_FullMethodName: {Needs: of(func(r *registryv1.SetMaintenanceRequest) []acl.Need {
			return checked(services, r.GetServiceId(), r.GetNode())
		})},
		registryv1.CatalogService_GetService_FullMethodName: {Needs: of(func(r *registryv1.GetServiceRequest) []acl.Need {
			return one(acl.Service, nameOf(services, r.GetServiceId()), acl.Read)
		})},
		registryv1.CatalogService_GetNode_FullMethodName: {Needs: of(func(r *registryv1.GetNodeRequest) []acl.Need {
			return one(acl.Node, r.GetNode(), acl.Read)
		})},
		registryv1.CatalogService_ListChecks_FullMethodName: {}, // The rows are filtered.
		registryv1.CatalogService_SetFailoverPolicy_FullMethodName: {Administrative: true, Needs: of(func(r *registryv1.SetFailoverPolicyRequest) []acl.Need {
			return one(acl.Service, r.GetPolicy().GetService(), acl.Write)
		})},
		registryv1.CatalogService_GetFailoverPolicy_FullMethodName: {Needs: of(func(r *registryv1.GetFailoverPolicyRequest) []acl.Need {
			return one(acl.Service, r.GetService(), acl.Read)
		})},

		registryv1.WatchService_Watch_FullMethodName: {}, // The rows are filtered.
		registryv1.WatchService_WatchInstances_FullMethodName: {Needs: of(func(r *registryv1.WatchInstancesRequest) []acl.Need {
			return one(acl.Service, r.GetService(), acl.Read)
		})},

		registryv1.OperatorService_ClusterStatus_FullMethodName:      {Needs: always(acl.Operator, "cluster", acl.Read)},
		registryv1.OperatorService_ServerStatus_FullMethodName:       {Needs: always(acl.Operator, "cluster", acl.Read)},
		registryv1.OperatorService_AddPeer_FullMethodName:            {Administrative: true, Needs: always(acl.Operator, "raft", acl.Write)},
		registryv1.OperatorService_RemovePeer_FullMethodName:         {Administrative: true, Needs: always(acl.Operator, "raft", acl.Write)},
		registryv1.OperatorService_TransferLeadership_FullMethodName: {Administrative: true, Needs: always(acl.Operator, "raft", acl.Write)},
		registryv1.OperatorService_GetAutopilotConfig_FullMethodName: {Needs: always(acl.Operator, "autopilot", acl.Read)},
		registryv1.OperatorService_SetAutopilotConfig_FullMethodName: {Administrative: true, Needs: always(acl.Operator, "autopilot", acl.Write)},
		registryv1.OperatorService_GetAutopilotState_FullMethodName:  {Needs: always(acl.Operator, "autopilot", acl.Read)},

		// A backup holds everything, and a restore can bring in any token. Both are streams: their handler writes the audit log.
		registryv1.BackupService_CreateBackup_FullMethodName:  {Needs: always(acl.Backup, "", acl.Read)},
		registryv1.BackupService_RestoreBackup_FullMethodName: {Needs: always(acl.Backup, "", acl.Write)},
		registryv1.BackupService_ListBackups_FullMethodName:   {Needs: always(acl.Backup, "", acl.List)},

		replicatorv1.StatusService_GetStatus_FullMethodName: {Needs: always(acl.Operator, "replication", acl.Read)},

		federationv1.FederationService_GetFederation_FullMethodName: {Needs: always(acl.Federation, "", acl.Read)},
	}
	for method, rule := range aboutACL() {
		rules[method] = rule
	}
	for method, rule := range forServices() {
		rules[method] = rule
	}
	return rules
}

// aboutACL are the methods of access control. Changes take a management token, since who can write rules
// can do everything; reading them takes operator:read on acl.
func aboutACL() api.Rules {
	read := api.Rule{Needs: always(acl.Operator, "acl", acl.Read)}
	change := func(name func(req any) string) api.Rule {
		return api.Rule{Administrative: true, Complete: api.FillSecret, Needs: func(req any) ([]acl.Need, error) {
			return one(acl.ACL, name(req), acl.Write), nil
		}}
	}
	policy := change(func(req any) string {
		switch r := req.(type) {
		case interface{ GetPolicy() *registryv1.ACLPolicy }:
			return "policy/" + r.GetPolicy().GetName()
		case interface{ GetName() string }:
			return "policy/" + r.GetName()
		}
		return "policy"
	})
	role := change(func(req any) string {
		switch r := req.(type) {
		case interface{ GetRole() *registryv1.ACLRole }:
			return "role/" + r.GetRole().GetName()
		case interface{ GetName() string }:
			return "role/" + r.GetName()
		}
		return "role"
	})
	token := change(func(req any) string {
		if r, ok := req.(interface{ GetAccessorId() string }); ok {
			return "token/" + r.GetAccessorId()
		}
		return "token"
	})
	return api.Rules{
		registryv1.ACLService_Bootstrap_FullMethodName:    token,
		registryv1.ACLService_CreatePolicy_FullMethodName: policy,
		registryv1.ACLService_UpdatePolicy_FullMethodName: policy,
		registryv1.ACLService_DeletePolicy_FullMethodName: policy,
		registryv1.ACLService_GetPolicy_FullMethodName:    read,
		registryv1.ACLService_ListPolicies_FullMethodName: read,
		registryv1.ACLService_CreateRole_FullMethodName:   role,
		registryv1.ACLService_UpdateRole_FullMethodName:   role,
		registryv1.ACLService_DeleteRole_FullMethodName:   role,
		registryv1.ACLService_GetRole_FullMethodName:      read,
		registryv1.ACLService_ListRoles_FullMethodName:    read,
		registryv1.ACLService_CreateToken_FullMethodName:  token,
		registryv1.ACLService_UpdateToken_FullMethodName:  token,
		registryv1.ACLService_CloneToken_FullMethodName:   token,
		registryv1.ACLService_DeleteToken_FullMethodName:  token,
		registryv1.ACLService_GetToken_FullMethodName:     read,
		registryv1.ACLService_ListTokens_FullMethodName:   read,
		registryv1.ACLService_GetSelf_FullMethodName:      {}, // Everyone may know what they have.
		registryv1.ACLService_Explain_FullMethodName:      {}, // The handler asks unless it is about the caller.
	}
}

// forServices are the methods that no token opens: the access table lists the services that may call them.
func forServices() api.Rules {
	closed := api.Rule{Needs: always(acl.ACL, "internal", acl.Write)}
	joining := func(name func(req any) string) api.Rule {
		return api.Rule{Administrative: true, Needs: func(req any) ([]acl.Need, error) {
			return one(acl.ACL, "join-token/"+name(req), acl.Write), nil
		}}
	}
	return api.Rules{
		registryv1.ProposalService_Propose_FullMethodName:         closed,
		registryv1.ProposalService_ReadIndex_FullMethodName:       closed,
		registryv1.ProposalService_Ask_FullMethodName:             closed,
		registryv1.ProposalService_RecallReadLease_FullMethodName: closed,
		registryv1.MemberService_Greet_FullMethodName:             closed,
		registryv1.MemberService_Join_FullMethodName:              closed,
		registryv1.MemberService_Announce_FullMethodName:          closed,
		registryv1.MemberService_Admit_FullMethodName:             closed,

		registryv1.TrustService_PutJoinToken_FullMethodName: joining(func(req any) string {
			r, _ := req.(*registryv1.PutJoinTokenRequest)
			return r.GetToken().GetDatacenter()
		}),
		registryv1.TrustService_AdmitDatacenter_FullMethodName: joining(func(req any) string {
			r, _ := req.(*registryv1.AdmitDatacenterRequest)
			return r.GetDatacenter().GetName()
		}),
		registryv1.TrustService_GetJoinToken_FullMethodName: closed,
		registryv1.TrustService_PublishRoots_FullMethodName: closed,

		registryv1.TokenService_IntrospectToken_FullMethodName: closed,
		registryv1.TokenService_AuthorizeToken_FullMethodName:  closed,

		federationv1.ReplicationService_Replicate_FullMethodName:       closed,
		federationv1.ReplicationService_ApplyReplicated_FullMethodName: closed,
		federationv1.ReplicationService_GetCursor_FullMethodName:       closed,
	}
}

// of makes a table entry of a function of one request type.
func of[T any](needs func(req T) []acl.Need) func(any) ([]acl.Need, error) {
	return func(req any) ([]acl.Need, error) {
		typed, ok := req.(T)
		if !ok {
			return one(acl.ACL, "internal", acl.Write), nil // The table is wrong; refuse.
		}
		return needs(typed), nil
	}
}

func one(resource acl.Resource, name string, access acl.Access) []acl.Need {
	return []acl.Need{{Resource: resource, Name: name, Access: access}}
}

func always(resource acl.Resource, name string, access acl.Access) func(any) ([]acl.Need, error) {
	return func(any) ([]acl.Need, error) { return one(resource, name, access), nil }
}

// registering takes the node and the service.
func registering(services serviceNames, r *registryv1.RegisterRequest) []acl.Need {
	out := one(acl.Node, r.GetNode().GetName(), acl.Write)
	if r.GetService() == nil {
		return out
	}
	return append(out, taking(services, r.GetService())...)
}

// checked takes whose check it is: an instance's service, or a node.
func checked(services serviceNames, id, node string) []acl.Need {
	if node != "" {
		return one(acl.Node, node, acl.Write)
	}
	return one(acl.Service, nameOf(services, id), acl.Write)
}

// taking takes the service, and the service whose instance is replaced if that is another.
func taking(services serviceNames, service *registryv1.Service) []acl.Need {
	out := one(acl.Service, service.GetName(), acl.Write)
	id := cmp.Or(service.GetId(), service.GetName())
	if old, known := services.ServiceName(id); known && old != service.GetName() {
		out = append(out, one(acl.Service, old, acl.Write)...)
	}
	return out
}
