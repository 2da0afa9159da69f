package registry

import (
	replicatorv1 "konsul.dev/proto/gen/konsul/replicator/v1"
	"konsul.dev/services/registry/internal/changes"
	"konsul.dev/services/registry/internal/forward"
	"konsul.dev/services/registry/internal/quota"
	"konsul.dev/services/registry/internal/replication"
	"konsul.dev/services/registry/internal/watching"
)

// newStreams makes what streams changes: watches and replication.
func (s *Service) newStreams(router *forward.Router, quotas *quota.Quotas) {
	metrics := changes.NewMetrics(s.deps.Telemetry.Metrics)
	lineages := replication.NewMetrics(s.deps.Telemetry.Metrics)
	source := changes.Source{Store: s.store, Hub: s.state.hub, Draining: s.draining, Metrics: metrics}
	s.watching = &watching.Service{
		Source: source, Clock: s.deps.Clock, Datacenter: s.cfg.Server.Datacenter, Catalog: s.state.catalog, Services: s.services,
		Tokens: s.state.tokens, Router: router, Open: quotas.Watch, Denied: s.core.Denied, Meta: s.core.MetaOf, StateTime: s.core.StateTime,
	}
	s.replication = &replication.Service{
		Source: source, Federation: s.state.federation, Commit: s.core.Commit, StateTime: s.core.StateTime,
		Replicator: replicatorv1.NewStatusServiceClient(s.replicator), Clock: s.deps.Clock, Metrics: lineages, Log: s.deps.Telemetry.Log,
	}
}
