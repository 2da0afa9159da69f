package api

import (
	"context"
	"time"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/catalog"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/watch"
)

type catalogService struct {
	registryv1.UnimplementedCatalogServiceServer
	*Core
	past  pastCatalog
	nodes *turns
}

// Register creates or updates an instance with its node and checks.
func (s *catalogService) Register(ctx context.Context, req *registryv1.RegisterRequest) (*registryv1.RegisterResponse, error) {
	defer s.nodes.stay(req.GetNode().GetName())()
	var service *registryv1.Service
	var removed []string
	result, err := s.change(ctx, req.GetRequestId(), func(now time.Time) (plan *catalog.Plan, err error) {
		plan, service, err = s.Services.Register(s.Catalog, req, registrant(ctx), now)
		if err == nil {
			removed = plan.RemovedChecks
		}
		return plan, err
	})
	if err != nil {
		return nil, err
	}
	if service != nil {
		service.CreateIndex, service.ModifyIndex = s.Catalog.Indexes(service.GetId())
	}
	return &registryv1.RegisterResponse{Meta: s.writeMeta(result.GetIndex()), Service: service, RemovedChecks: removed}, nil
}

// RegisterNode creates or updates a node with many instances.
func (s *catalogService) RegisterNode(ctx context.Context, req *registryv1.RegisterNodeRequest) (*registryv1.RegisterNodeResponse, error) {
	defer s.nodes.stay(req.GetNode().GetName())()
	result, err := s.change(ctx, req.GetRequestId(), func(now time.Time) (*catalog.Plan, error) {
		return s.Services.RegisterNode(s.Catalog, req, registrant(ctx), now)
	})
	if err != nil {
		return nil, err
	}
	return &registryv1.RegisterNodeResponse{Meta: s.writeMeta(result.GetIndex())}, nil
}

// Deregister removes an instance with its checks.
func (s *catalogService) Deregister(ctx context.Context, req *registryv1.DeregisterRequest) (*registryv1.DeregisterResponse, error) {
	result, err := s.change(ctx, req.GetRequestId(), func(time.Time) (*catalog.Plan, error) {
		return s.Services.Deregister(s.Catalog, req)
	})
	if err != nil {
		return nil, err
	}
	if result.GetChanged() == 0 {
		return nil, catalog.ServiceNotFound(req.GetServiceId())
	}
	return &registryv1.DeregisterResponse{Meta: s.writeMeta(result.GetIndex())}, nil
}

// DeregisterNode removes a node with its instances and all their checks.
func (s *catalogService) DeregisterNode(ctx context.Context, req *registryv1.DeregisterNodeRequest) (*registryv1.DeregisterNodeResponse, error) {
	defer s.nodes.leave(req.GetNode())()
	instances, changed := 0, uint64(0)
	for part, tries := 0, planTries; tries > 0; part++ {
		gone := 0
		result, err := s.change(ctx, restID(req.GetRequestId(), part), func(time.Time) (plan *catalog.Plan, err error) {
			plan, gone, err = s.Services.DeregisterNode(s.Catalog, req)
			return plan, err
		})
		if err != nil {
			return nil, err
		}
		instances, changed = instances+gone, changed+result.GetChanged()
		left, _ := s.Catalog.Node(req.GetNode())
		if left.Node != nil && left.Node.GetModifyIndex() < result.GetIndex() {
			continue // It had more instances than one commit deregisters, and is there until the last of them goes.
		}
		tries--
		// An instance whose registration was given up before its outcome was known may have come to the node as it was.
		if left.Node != nil || len(left.Instances) == 0 {
			if changed == 0 {
				return nil, catalog.NodeNotFound(req.GetNode())
			}
			return &registryv1.DeregisterNodeResponse{Meta: s.writeMeta(result.GetIndex()), Instances: uint32(instances)}, nil //nolint:gosec // a count of instances in memory
		}
	}
	return nil, catalog.Moved()
}

// UpdateChecks records check outcomes.
func (s *catalogService) UpdateChecks(ctx context.Context, req *registryv1.UpdateChecksRequest) (*registryv1.UpdateChecksResponse, error) {
	result, err := s.change(ctx, req.GetRequestId(), func(now time.Time) (*catalog.Plan, error) {
		return s.Services.UpdateChecks(s.Catalog, req, now)
	})
	if err != nil {
		return nil, err
	}
	return &registryv1.UpdateChecksResponse{Meta: s.writeMeta(result.GetIndex())}, nil
}

// DeregisterCheck removes one check.
func (s *catalogService) DeregisterCheck(ctx context.Context, req *registryv1.DeregisterCheckRequest) (*registryv1.DeregisterCheckResponse, error) {
	result, err := s.change(ctx, req.GetRequestId(), func(time.Time) (*catalog.Plan, error) {
		return s.Services.DeregisterCheck(s.Catalog, req)
	})
	if err != nil {
		return nil, err
	}
	if result.GetChanged() == 0 {
		return nil, catalog.CheckNotFound(req)
	}
	return &registryv1.DeregisterCheckResponse{Meta: s.writeMeta(result.GetIndex())}, nil
}

// Heartbeat says that nodes are alive.
func (s *catalogService) Heartbeat(ctx context.Context, req *registryv1.HeartbeatRequest) (*registryv1.HeartbeatResponse, error) {
	var unknown []string
	result, err := s.change(ctx, req.GetRequestId(), func(now time.Time) (plan *catalog.Plan, err error) {
		plan, unknown, err = s.Services.Heartbeat(s.Catalog, req, now)
		return plan, err
	})
	if err != nil {
		return nil, err
	}
	return &registryv1.HeartbeatResponse{Meta: s.writeMeta(result.GetIndex()), Unknown: unknown}, nil
}

// SetMaintenance switches the maintenance mode of an instance or of a node.
func (s *catalogService) SetMaintenance(ctx context.Context, req *registryv1.SetMaintenanceRequest) (*registryv1.SetMaintenanceResponse, error) {
	result, err := s.change(ctx, req.GetRequestId(), func(now time.Time) (*catalog.Plan, error) {
		return s.Services.SetMaintenance(s.Catalog, req, now)
	})
	if err != nil {
		return nil, err
	}
	return &registryv1.SetMaintenanceResponse{Meta: s.writeMeta(result.GetIndex())}, nil
}

// QueryService answers the instances of a service.
func (s *catalogService) QueryService(ctx context.Context, req *registryv1.QueryServiceRequest) (*registryv1.QueryServiceResponse, error) {
	selected, err := catalog.Select(req)
	if err != nil {
		return nil, err
	}
	selected.PassingOnly = req.GetPassingOnly()
	name := req.GetService()
	if err := s.Services.CheckServiceName(name); err != nil {
		return nil, err
	}
	if err := s.await(ctx, req, func() catalog.Answer { return s.Catalog.Changed(name) }, catalog.Topic(name)); err != nil {
		return nil, err
	}
	from, err := s.at(ctx, req)
	if err != nil {
		return nil, err
	}
	if !selected.Plain() {
		instances, answer := from.Query(name, selected)
		return &registryv1.QueryServiceResponse{Instances: instances, Meta: s.queryMeta(answer.Index)}, nil
	}
	encoded, answer := from.Encoded(name, selected.PassingOnly)
	resp := &registryv1.QueryServiceResponse{Meta: s.queryMeta(answer.Index)}
	// The instances are encoded already. Where a message keeps the fields that it does not know, they are sent as
	// they stand: whoever decodes the answer finds them in resp.Instances.
	resp.ProtoReflect().SetUnknown(encoded)
	return resp, nil
}

// ListServices answers the names in the catalogue.
func (s *catalogService) ListServices(ctx context.Context, req *registryv1.ListServicesRequest) (*registryv1.ListServicesResponse, error) {
	selected, err := catalog.Select(req)
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx, req, s.Catalog.ListChanged, everything()...); err != nil {
		return nil, err
	}
	from, err := s.at(ctx, req)
	if err != nil {
		return nil, err
	}
	services, answer := from.Services(selected)
	resp := &registryv1.ListServicesResponse{Meta: s.queryMeta(answer.Index)}
	resp.Services = visible(ctx, acl.Service, services, (*registryv1.ServiceSummary).GetName, resp.GetMeta())
	return resp, nil
}

// ListNodes answers the nodes in the catalogue.
func (s *catalogService) ListNodes(ctx context.Context, req *registryv1.ListNodesRequest) (*registryv1.ListNodesResponse, error) {
	selected, err := catalog.SelectNodes(req)
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx, req, s.Catalog.NodesChanged, catalog.NodeRows()...); err != nil {
		return nil, err
	}
	from, err := s.at(ctx, req)
	if err != nil {
		return nil, err
	}
	nodes, answer := from.Nodes(selected)
	resp := &registryv1.ListNodesResponse{Meta: s.queryMeta(answer.Index)}
	resp.Nodes = visible(ctx, acl.Node, nodes, (*registryv1.Node).GetName, resp.GetMeta())
	return resp, nil
}

// ListChecks answers the checks of instances and nodes.
func (s *catalogService) ListChecks(ctx context.Context, req *registryv1.ListChecksRequest) (*registryv1.ListChecksResponse, error) {
	selected, err := catalog.SelectChecks(req)
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx, req, s.Catalog.ListChanged, everything()...); err != nil {
		return nil, err
	}
	from, err := s.at(ctx, req)
	if err != nil {
		return nil, err
	}
	checks, answer := from.Checks(selected)
	resp := &registryv1.ListChecksResponse{Meta: s.queryMeta(answer.Index)}
	ofNodes := 0
	for ofNodes < len(checks) && checks[ofNodes].GetService() == "" {
		ofNodes++
	}
	resp.Checks = append(
		visible(ctx, acl.Node, checks[:ofNodes:ofNodes], (*registryv1.CheckSummary).GetNode, resp.GetMeta()),
		visible(ctx, acl.Service, checks[ofNodes:], (*registryv1.CheckSummary).GetService, resp.GetMeta())...,
	)
	return resp, nil
}

// GetService answers one instance.
func (s *catalogService) GetService(ctx context.Context, req *registryv1.GetServiceRequest) (*registryv1.GetServiceResponse, error) {
	id := req.GetServiceId()
	changed := func() catalog.Answer { _, a := s.Catalog.Instance(id); return a }
	if err := s.await(ctx, req, changed, everything()...); err != nil {
		return nil, err
	}
	from, err := s.at(ctx, req)
	if err != nil {
		return nil, err
	}
	instance, answer := from.Instance(id)
	if instance == nil {
		return nil, withIndex(catalog.ServiceNotFound(id), answer.Index)
	}
	// The id may be another service's meanwhile, or have been another's as of the index asked for.
	need := acl.Need{Resource: acl.Service, Name: instance.GetService().GetName(), Access: acl.Read}
	if err := s.permit(ctx, registryv1.CatalogService_GetService_FullMethodName, []acl.Need{need}); err != nil {
		return nil, err
	}
	return &registryv1.GetServiceResponse{Instance: instance, Meta: s.queryMeta(answer.Index)}, nil
}

// GetNode answers a node with its checks and its instances.
func (s *catalogService) GetNode(ctx context.Context, req *registryv1.GetNodeRequest) (*registryv1.GetNodeResponse, error) {
	name := req.GetNode()
	changed := func() catalog.Answer { _, a := s.Catalog.Node(name); return a }
	if err := s.await(ctx, req, changed, everything()...); err != nil {
		return nil, err
	}
	from, err := s.at(ctx, req)
	if err != nil {
		return nil, err
	}
	node, answer := from.Node(name)
	if node.Node == nil {
		return nil, withIndex(catalog.NodeNotFound(name), answer.Index)
	}
	resp := &registryv1.GetNodeResponse{Node: node.Node, Checks: node.Checks, Status: node.Status, Meta: s.queryMeta(answer.Index)}
	resp.Instances = visible(ctx, acl.Service, node.Instances, func(i *registryv1.ServiceInstance) string { return i.GetService().GetName() }, resp.GetMeta())
	return resp, nil
}

// await blocks until an answer of the catalogue has changed, if the request asks for it.
func (s *catalogService) await(ctx context.Context, req blocking, changed func() catalog.Answer, filters ...watch.Filter) error {
	return s.block(ctx, req, filters, func(uint64) (uint64, error) { return changed().Changed, nil })
}

// everything wakes on every change of the catalogue.
func everything() []watch.Filter {
	var filters []watch.Filter
	for _, table := range catalog.Tables() {
		filters = append(filters, watch.Filter{Table: table})
	}
	return filters
}

// SetFailoverPolicy creates or replaces a policy.
func (s *catalogService) SetFailoverPolicy(ctx context.Context, req *registryv1.SetFailoverPolicyRequest) (*registryv1.SetFailoverPolicyResponse, error) {
	cmd, err := s.Services.SetFailoverPolicy(req)
	if err != nil {
		return nil, err
	}
	result, err := s.Commit(ctx, cmd)
	if err != nil {
		return nil, err
	}
	return &registryv1.SetFailoverPolicyResponse{Meta: s.writeMeta(result.GetIndex())}, nil
}

// GetFailoverPolicy answers the policy of a service.
func (s *catalogService) GetFailoverPolicy(_ context.Context, req *registryv1.GetFailoverPolicyRequest) (*registryv1.GetFailoverPolicyResponse, error) {
	resp := &registryv1.GetFailoverPolicyResponse{}
	err := s.Store.View(func(r record.Reader) (err error) {
		resp.Policy, err = catalog.FailoverPolicy(r, req.GetService())
		resp.Meta = s.globalMeta(r.Index())
		return err
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}
