package registry

import (
	"google.golang.org/grpc"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/api"
	"konsul.dev/services/registry/internal/api/access"
	"konsul.dev/services/registry/internal/api/backups"
	"konsul.dev/services/registry/internal/api/keys"
	"konsul.dev/services/registry/internal/api/leases"
	"konsul.dev/services/registry/internal/api/locks"
	"konsul.dev/services/registry/internal/api/operator"
	"konsul.dev/services/registry/internal/api/proposals"
	"konsul.dev/services/registry/internal/api/services"
	"konsul.dev/services/registry/internal/api/trust"
	"konsul.dev/services/registry/internal/federation"
	"konsul.dev/services/registry/internal/forward"
	"konsul.dev/services/registry/internal/kv"
	"konsul.dev/services/registry/internal/lease"
	"konsul.dev/services/registry/internal/lock"
	"konsul.dev/services/registry/internal/quota"
)

// newCore makes what the handlers share.
func (s *Service) newCore(router *forward.Router, quotas *quota.Quotas) {
	blocked := api.NewBlocked(s.deps.Telemetry.Metrics)
	s.core = &api.Core{
		Node: s.node, Proposer: router, Store: s.store, Hub: s.state.hub, Tokens: s.state.tokens, Federation: s.state.federation,
		Audit: s.audit, Clock: s.deps.Clock, Blocked: blocked, Quotas: quotas, Sweeping: make(chan struct{}, 1), Draining: s.draining,
	}
	s.bearer = &access.Bearer{Tokens: s.state.tokens, Hub: s.state.hub, Confirm: router.Confirm}
}

// register adds a handler for every service to a server.
func (s *Service) register(to grpc.ServiceRegistrar, router *forward.Router) {
	operations := keys.NewOperations(s.deps.Telemetry.Metrics)
	dc, r, core, log := s.cfg.Server.Datacenter, s.cfg.Registry, s.core, s.deps.Telemetry.Log
	registryv1.RegisterKVServiceServer(to, &keys.Service{
		Core: core, Router: router, MaxTxnBytes: r.MaxTxnBytes, Operations: operations,
		Writer: kv.Writer{Datacenter: dc, MaxValueBytes: r.MaxValueBytes, MaxOperations: r.MaxTxnOperations},
	})
	registryv1.RegisterLeaseServiceServer(to, &leases.Service{
		Core: core, Writer: lease.Writer{Datacenter: dc, MinTTL: r.Lease.MinTTL, MaxTTL: r.Lease.MaxTTL},
		Keeper: s.state.leases, Seen: s.state.machine.Seen,
	})
	registryv1.RegisterLockServiceServer(to, &locks.Service{
		Core: core, Writer: lock.Writer{Delay: r.Lease.LockDelay}, Turns: lock.NewTurns(),
	})
	registryv1.RegisterCatalogServiceServer(to, services.New(core, services.Params{
		Catalog: s.state.catalog, Writer: s.services, Deadlines: s.deadlines,
	}))
	registryv1.RegisterACLServiceServer(to, &access.Service{
		Core: core, Bearer: s.bearer, Writer: acl.Writer{Datacenter: dc}, ResetFile: s.dir(acl.ResetFile), Log: log,
	})
	registryv1.RegisterTokenServiceServer(to, &access.Introspection{Core: core, Bearer: s.bearer})
	registryv1.RegisterOperatorServiceServer(to, &operator.Service{
		Core: core, ServerID: r.ID, Version: s.deps.Version, Raft: s.node, Cluster: s.cluster, Members: s.state.members,
		Peers: s.pool, Clocks: s.clocks,
	})
	registryv1.RegisterMemberServiceServer(to, &operator.Members{Cluster: s.cluster})
	registryv1.RegisterBackupServiceServer(to, &backups.Service{
		Core: core, ServerID: r.ID, Router: router, Backups: s.backups, Peers: s.pool, Servers: s.node.Servers, Log: log,
	})
	registryv1.RegisterTrustServiceServer(to, &trust.Service{Core: core, Joiner: federation.NewJoiner(dc, s.state.machine.Seen)})
	federationv1.RegisterFederationServiceServer(to, &trust.Federation{Core: core})
	registryv1.RegisterProposalServiceServer(to, &proposals.Service{
		Node: s.node, Hub: s.state.hub, Recall: router.RecallReadLease,
	})
}
