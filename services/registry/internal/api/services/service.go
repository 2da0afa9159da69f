package services

import (
	"context"
	"time"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/api"
	"konsul.dev/services/registry/internal/catalog"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/watch"
)

// Deadlines are those of the catalogue, kept by the leader.
type Deadlines interface {
	// Renew begins a deadline anew; false when there is none of that key.
	Renew(key string) bool
}

// Params are what a Service has beside the core.
type Params struct {
	Catalog   *catalog.View
	Writer    *catalog.Writer
	Deadlines Deadlines
}

// Service is the CatalogService.
type Service struct {
	registryv1.UnimplementedCatalogServiceServer
	*api.Core
	Params
	past  pastCatalog
	nodes *turns
}

// New returns the service.
func New(core *api.Core, p Params) *Service {
	return &Service{Core: core, Params: p, nodes: newTurns()}
}

// change commits what plan makes of the catalogue; see api.Core.Replan. Deadlines are renewed also
// when there is nothing to commit.
func (s *Service) change(ctx context.Context, requestID string, plan func(now time.Time) (*catalog.Plan, error)) (*registryv1.CommandResult, error) {
	var last *catalog.Plan
	result, err := s.Replan(ctx, requestID, catalog.ReasonCheckMoved, func() (cmd *registryv1.Command, index uint64, err error) {
		index = s.Catalog.Index()
		if last, err = plan(s.Clock.Now()); err != nil {
			return nil, 0, err
		}
		return last.Command, index, nil
	})
	if err != nil {
		return nil, err
	}
	if result.GetFailedReason() != "" {
		return nil, catalog.Moved()
	}
	for _, key := range last.Renews {
		s.Deadlines.Renew(key)
	}
	return result, nil
}

// Register creates or updates an instance with its node and checks.
func (s *Service) Register(ctx context.Context, req *registryv1.RegisterRequest) (*registryv1.RegisterResponse, error) {
	defer s.nodes.stay(req.GetNode().GetName())()
	var service *registryv1.Service
	var removed []string
	result, err := s.change(ctx, req.GetRequestId(), func(now time.Time) (plan *catalog.Plan, err error) {
		plan, service, err = s.Writer.Register(s.Catalog, req, registrant(ctx), now)
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
	return &registryv1.RegisterResponse{Meta: s.WriteMeta(result.GetIndex()), Service: service, RemovedChecks: removed}, nil
}

// RegisterNode creates or updates a node with many instances.
func (s *Service) RegisterNode(ctx context.Context, req *registryv1.RegisterNodeRequest) (*registryv1.RegisterNodeResponse, error) {
	defer s.nodes.stay(req.GetNode().GetName())()
	result, err := s.change(ctx, req.GetRequestId(), func(now time.Time) (*catalog.Plan, error) {
		return s.Writer.RegisterNode(s.Catalog, req, registrant(ctx), now)
	})
	return &registryv1.RegisterNodeResponse{Meta: s.WriteMeta(result.GetIndex())}, err
}

// Deregister removes an instance with its checks.
func (s *Service) Deregister(ctx context.Context, req *registryv1.DeregisterRequest) (*registryv1.DeregisterResponse, error) {
	result, err := s.change(ctx, req.GetRequestId(), func(time.Time) (*catalog.Plan, error) {
		return s.Writer.Deregister(s.Catalog, req)
	})
	if err != nil {
		return nil, err
	}
	if result.GetChanged() == 0 {
		return nil, catalog.ServiceNotFound(req.GetServiceId())
	}
	return &registryv1.DeregisterResponse{Meta: s.WriteMeta(result.GetIndex())}, nil
}

// DeregisterNode removes a node with its instances and all their checks.
func (s *Service) DeregisterNode(ctx context.Context, req *registryv1.DeregisterNodeRequest) (*registryv1.DeregisterNodeResponse, error) {
	defer s.nodes.leave(req.GetNode())()
	instances, changed := 0, uint64(0)
	for part, tries := 0, api.PlanTries; tries > 0; part++ {
		gone := 0
		result, err := s.change(ctx, api.RestID(req.GetRequestId(), part), func(time.Time) (plan *catalog.Plan, err error) {
			plan, gone, err = s.Writer.DeregisterNode(s.Catalog, req)
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
		// An instance whose registration was given up before its outcome was known may have come to
		// the node as it was.
		if left.Node != nil || len(left.Instances) == 0 {
			if changed == 0 {
				return nil, catalog.NodeNotFound(req.GetNode())
			}
			return &registryv1.DeregisterNodeResponse{Meta: s.WriteMeta(result.GetIndex()), Instances: uint32(instances)}, nil //nolint:gosec // a count of instances in memory
		}
	}
	return nil, catalog.Moved()
}

// UpdateChecks records check outcomes.
func (s *Service) UpdateChecks(ctx context.Context, req *registryv1.UpdateChecksRequest) (*registryv1.UpdateChecksResponse, error) {
	result, err := s.change(ctx, req.GetRequestId(), func(now time.Time) (*catalog.Plan, error) {
		return s.Writer.UpdateChecks(s.Catalog, req, now)
	})
	return &registryv1.UpdateChecksResponse{Meta: s.WriteMeta(result.GetIndex())}, err
}

// DeregisterCheck removes one check.
func (s *Service) DeregisterCheck(ctx context.Context, req *registryv1.DeregisterCheckRequest) (*registryv1.DeregisterCheckResponse, error) {
	result, err := s.change(ctx, req.GetRequestId(), func(time.Time) (*catalog.Plan, error) {
		return s.Writer.DeregisterCheck(s.Catalog, req)
	})
	if err != nil {
		return nil, err
	}
	if result.GetChanged() == 0 {
		return nil, catalog.CheckNotFound(req)
	}
	return &registryv1.DeregisterCheckResponse{Meta: s.WriteMeta(result.GetIndex())}, nil
}

// Heartbeat says that nodes are alive.
func (s *Service) Heartbeat(ctx context.Context, req *registryv1.HeartbeatRequest) (*registryv1.HeartbeatResponse, error) {
	var unknown []string
	result, err := s.change(ctx, req.GetRequestId(), func(now time.Time) (plan *catalog.Plan, err error) {
		plan, unknown, err = s.Writer.Heartbeat(s.Catalog, req, now)
		return plan, err
	})
	return &registryv1.HeartbeatResponse{Meta: s.WriteMeta(result.GetIndex()), Unknown: unknown}, err
}

// SetMaintenance switches the maintenance mode of an instance or of a node.
func (s *Service) SetMaintenance(ctx context.Context, req *registryv1.SetMaintenanceRequest) (*registryv1.SetMaintenanceResponse, error) {
	result, err := s.change(ctx, req.GetRequestId(), func(now time.Time) (*catalog.Plan, error) {
		return s.Writer.SetMaintenance(s.Catalog, req, now)
	})
	return &registryv1.SetMaintenanceResponse{Meta: s.WriteMeta(result.GetIndex())}, err
}

// QueryService returns the instances of a service.
func (s *Service) QueryService(ctx context.Context, req *registryv1.QueryServiceRequest) (*registryv1.QueryServiceResponse, error) {
	selected, err := catalog.Select(req)
	if err != nil {
		return nil, err
	}
	selected.PassingOnly = req.GetPassingOnly()
	name := req.GetService()
	if err := s.Writer.CheckServiceName(name); err != nil {
		return nil, err
	}
	from, err := s.read(ctx, req, func() catalog.Answer { return s.Catalog.Changed(name) }, catalog.Topic(name))
	if err != nil {
		return nil, err
	}
	if !selected.Plain() {
		instances, answer := from.Query(name, selected)
		return &registryv1.QueryServiceResponse{Instances: instances, Meta: s.QueryMeta(answer.Index)}, nil
	}
	encoded, answer := from.Encoded(name, selected.PassingOnly)
	resp := &registryv1.QueryServiceResponse{Meta: s.QueryMeta(answer.Index)}
	// The instances are encoded already. Where a message keeps the fields that it does not know,
	// they are sent as they stand: whoever decodes the answer finds them in resp.Instances.
	resp.ProtoReflect().SetUnknown(encoded)
	return resp, nil
}

// ListServices returns the names in the catalogue.
func (s *Service) ListServices(ctx context.Context, req *registryv1.ListServicesRequest) (*registryv1.ListServicesResponse, error) {
	selected, err := catalog.Select(req)
	if err != nil {
		return nil, err
	}
	from, err := s.read(ctx, req, s.Catalog.ListChanged, everything()...)
	if err != nil {
		return nil, err
	}
	services, answer := from.Services(selected)
	resp := &registryv1.ListServicesResponse{Meta: s.QueryMeta(answer.Index)}
	resp.Services = api.Visible(ctx, acl.Service, services, (*registryv1.ServiceSummary).GetName, resp.GetMeta())
	return resp, nil
}

// ListNodes returns the nodes in the catalogue.
func (s *Service) ListNodes(ctx context.Context, req *registryv1.ListNodesRequest) (*registryv1.ListNodesResponse, error) {
	selected, err := catalog.SelectNodes(req)
	if err != nil {
		return nil, err
	}
	from, err := s.read(ctx, req, s.Catalog.NodesChanged, catalog.NodeRows()...)
	if err != nil {
		return nil, err
	}
	nodes, answer := from.Nodes(selected)
	resp := &registryv1.ListNodesResponse{Meta: s.QueryMeta(answer.Index)}
	resp.Nodes = api.Visible(ctx, acl.Node, nodes, (*registryv1.Node).GetName, resp.GetMeta())
	return resp, nil
}

// ListChecks returns the checks of instances and nodes.
func (s *Service) ListChecks(ctx context.Context, req *registryv1.ListChecksRequest) (*registryv1.ListChecksResponse, error) {
	selected, err := catalog.SelectChecks(req)
	if err != nil {
		return nil, err
	}
	from, err := s.read(ctx, req, s.Catalog.ListChanged, everything()...)
	if err != nil {
		return nil, err
	}
	checks, answer := from.Checks(selected)
	resp := &registryv1.ListChecksResponse{Meta: s.QueryMeta(answer.Index)}
	ofNodes := 0
	for ofNodes < len(checks) && checks[ofNodes].GetService() == "" {
		ofNodes++
	}
	resp.Checks = append(
		api.Visible(ctx, acl.Node, checks[:ofNodes:ofNodes], (*registryv1.CheckSummary).GetNode, resp.GetMeta()),
		api.Visible(ctx, acl.Service, checks[ofNodes:], (*registryv1.CheckSummary).GetService, resp.GetMeta())...,
	)
	return resp, nil
}

// GetService returns one instance.
func (s *Service) GetService(ctx context.Context, req *registryv1.GetServiceRequest) (*registryv1.GetServiceResponse, error) {
	id := req.GetServiceId()
	changed := func() catalog.Answer { _, a := s.Catalog.Instance(id); return a }
	from, err := s.read(ctx, req, changed, everything()...)
	if err != nil {
		return nil, err
	}
	instance, answer := from.Instance(id)
	if instance == nil {
		return nil, api.WithIndex(catalog.ServiceNotFound(id), answer.Index)
	}
	// The id may be another service's meanwhile, or have been another's as of the index asked for.
	need := acl.Need{Resource: acl.Service, Name: instance.GetService().GetName(), Access: acl.Read}
	if err := s.Permit(ctx, registryv1.CatalogService_GetService_FullMethodName, []acl.Need{need}); err != nil {
		return nil, err
	}
	return &registryv1.GetServiceResponse{Instance: instance, Meta: s.QueryMeta(answer.Index)}, nil
}

// GetNode returns a node with its checks and its instances.
func (s *Service) GetNode(ctx context.Context, req *registryv1.GetNodeRequest) (*registryv1.GetNodeResponse, error) {
	name := req.GetNode()
	changed := func() catalog.Answer { _, a := s.Catalog.Node(name); return a }
	from, err := s.read(ctx, req, changed, everything()...)
	if err != nil {
		return nil, err
	}
	node, answer := from.Node(name)
	if node.Node == nil {
		return nil, api.WithIndex(catalog.NodeNotFound(name), answer.Index)
	}
	resp := &registryv1.GetNodeResponse{Node: node.Node, Checks: node.Checks, Status: node.Status, Meta: s.QueryMeta(answer.Index)}
	resp.Instances = api.Visible(ctx, acl.Service, node.Instances, func(i *registryv1.ServiceInstance) string { return i.GetService().GetName() }, resp.GetMeta())
	return resp, nil
}

// request is a read that may block, or ask about the past.
type request interface {
	api.Blocking
	api.Dated
}

// read returns the catalogue that a request asks about, once the answer has changed if the request
// waits for that.
func (s *Service) read(ctx context.Context, req request, changed func() catalog.Answer, filters ...watch.Filter) (*catalog.View, error) {
	err := s.Block(ctx, req, filters, func(uint64) (uint64, error) { return changed().Changed, nil })
	if err != nil {
		return nil, err
	}
	return s.at(ctx, req)
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
func (s *Service) SetFailoverPolicy(ctx context.Context, req *registryv1.SetFailoverPolicyRequest) (*registryv1.SetFailoverPolicyResponse, error) {
	cmd, err := s.Writer.SetFailoverPolicy(req)
	if err != nil {
		return nil, err
	}
	result, err := s.Commit(ctx, cmd)
	return &registryv1.SetFailoverPolicyResponse{Meta: s.WriteMeta(result.GetIndex())}, err
}

// GetFailoverPolicy returns the policy of a service.
func (s *Service) GetFailoverPolicy(_ context.Context, req *registryv1.GetFailoverPolicyRequest) (*registryv1.GetFailoverPolicyResponse, error) {
	resp := &registryv1.GetFailoverPolicyResponse{}
	err := s.Store.View(func(r record.Reader) (err error) {
		resp.Policy, err = catalog.FailoverPolicy(r, req.GetService())
		resp.Meta = s.GlobalMeta(r.Index())
		return err
	})
	return resp, err
}
