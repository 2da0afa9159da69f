package api

import (
	"konsul.dev/pkg/rpc"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	replicatorv1 "konsul.dev/proto/gen/konsul/replicator/v1"
)

// Access says who may call what. What is not listed is refused.
func Access() rpc.Access {
	own := func(services ...string) []rpc.Peer {
		var peers []rpc.Peer
		for _, s := range services {
			peers = append(peers, rpc.Peer{Service: s})
		}
		return peers
	}
	far := func(service string) rpc.Peer { return rpc.Peer{Service: service, AnyDC: true} }
	// Calls of people come through the gateway, or were passed on by a registry.
	people := []rpc.Peer{{Service: "gateway"}, far("registry")}
	discovery := rpc.Rule{Peers: append(own("agent", "failover-router", "gateway"), far("registry")), TokenPeers: people}
	registration := rpc.Rule{Peers: own("agent", "registry"), TokenPeers: people}
	return rpc.Access{
		registryv1.KVService_ServiceDesc.ServiceName:    {TokenPeers: people},
		registryv1.LeaseService_ServiceDesc.ServiceName: {TokenPeers: people},
		registryv1.LockService_ServiceDesc.ServiceName:  {TokenPeers: people},

		registryv1.CatalogService_ServiceDesc.ServiceName:          {TokenPeers: people},
		registryv1.CatalogService_QueryService_FullMethodName:      discovery,
		registryv1.CatalogService_ListServices_FullMethodName:      discovery,
		registryv1.CatalogService_ListNodes_FullMethodName:         discovery,
		registryv1.CatalogService_GetFailoverPolicy_FullMethodName: discovery,
		registryv1.CatalogService_GetService_FullMethodName:        discovery,
		registryv1.CatalogService_GetNode_FullMethodName:           discovery,
		registryv1.CatalogService_ListChecks_FullMethodName:        discovery,
		registryv1.CatalogService_RegisterNode_FullMethodName:      registration,
		registryv1.CatalogService_DeregisterNode_FullMethodName:    registration,
		registryv1.CatalogService_DeregisterCheck_FullMethodName:   registration,
		registryv1.CatalogService_Heartbeat_FullMethodName:         registration,
		registryv1.CatalogService_SetMaintenance_FullMethodName:    registration,
		registryv1.CatalogService_Register_FullMethodName:          registration,
		registryv1.CatalogService_Deregister_FullMethodName:        registration,
		registryv1.CatalogService_UpdateChecks_FullMethodName:      registration,
		// An agent's policy belongs to the primary: the agent's registry passes it on.
		registryv1.CatalogService_SetFailoverPolicy_FullMethodName: {Peers: append(own("agent"), far("registry")), TokenPeers: people},

		registryv1.WatchService_ServiceDesc.ServiceName: {
			Peers:      append(own("gateway", "failover-router", "replicator", "wan-gossip", "agent"), far("registry")),
			TokenPeers: people,
		},
		registryv1.ProposalService_ServiceDesc.ServiceName: {Peers: own("registry")},
		registryv1.MemberService_ServiceDesc.ServiceName:   {Peers: own("registry")},
		registryv1.TrustService_ServiceDesc.ServiceName:    {Peers: own("ca", "registry")},
		registryv1.TokenService_ServiceDesc.ServiceName:    {Peers: own("gateway")},

		registryv1.OperatorService_ServiceDesc.ServiceName:     {TokenPeers: people},
		registryv1.OperatorService_ServerStatus_FullMethodName: {TokenPeers: people, Peers: own("registry")},
		registryv1.ACLService_ServiceDesc.ServiceName:          {TokenPeers: people},
		registryv1.BackupService_ServiceDesc.ServiceName:       {TokenPeers: people},
		registryv1.BackupService_ListBackups_FullMethodName:    {TokenPeers: people, Peers: own("registry")},
		// It makes the first token, so it can ask for none: the handler sees to it that it works once.
		registryv1.ACLService_Bootstrap_FullMethodName: {Peers: people},

		replicatorv1.StatusService_ServiceDesc.ServiceName:             {TokenPeers: people},
		federationv1.FederationService_ServiceDesc.ServiceName:         {Peers: append(own("gateway", "replicator"), far("registry")), TokenPeers: people},
		federationv1.ReplicationService_Replicate_FullMethodName:       {Peers: []rpc.Peer{far("replicator")}},
		federationv1.ReplicationService_ApplyReplicated_FullMethodName: {Peers: own("replicator", "registry")},
		federationv1.ReplicationService_GetCursor_FullMethodName:       {Peers: own("replicator", "registry")},
	}
}
