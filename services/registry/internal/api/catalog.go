package api

import (
	"context"
	"strconv"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/catalog"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/watch"
)

type catalogService struct {
	registryv1.UnimplementedCatalogServiceServer
	*Core
}

// planTries bounds how often a write is planned anew after it lost a race.
const planTries = 5

// planned commits what plan makes of the current state, and plans anew when the state moved in
// between. Each try has a request id of its own, made of the caller's, so that a retry of the whole
// finds the outcome of the try that succeeded. A plan without operations needs no commit.
func (c *Core) planned(ctx context.Context, requestID string, plan func(r record.Reader) (*registryv1.Command, error)) (*registryv1.CommandResult, error) {
	var result *registryv1.CommandResult
	for try := range planTries {
		var cmd *registryv1.Command
		index := uint64(0)
		err := c.Store.View(func(r record.Reader) (err error) {
			cmd, err = plan(r)
			index = r.Index()
			return err
		})
		if err != nil {
			return nil, err
		}
		if len(cmd.GetOperations()) == 0 {
			return &registryv1.CommandResult{Index: index}, nil
		}
		cmd.RequestId = requestID
		if try > 0 && requestID != "" {
			cmd.RequestId = requestID + "#" + strconv.Itoa(try)
		}
		result, err = c.commit(ctx, cmd)
		if err != nil || result.GetFailedReason() != catalog.ReasonCheckMoved {
			return result, err
		}
	}
	return result, nil
}

// Register creates or replaces an instance with its node and checks.
func (s *catalogService) Register(ctx context.Context, req *registryv1.RegisterRequest) (*registryv1.RegisterResponse, error) {
	var service *registryv1.Service
	result, err := s.planned(ctx, req.GetRequestId(), func(r record.Reader) (cmd *registryv1.Command, err error) {
		cmd, service, err = s.Services.Register(r, req, s.Clock.Now())
		return cmd, err
	})
	if err != nil {
		return nil, err
	}
	if err := moved(result); err != nil {
		return nil, err
	}
	resp := &registryv1.RegisterResponse{Meta: s.writeMeta(result.GetIndex()), Service: service}
	if service != nil {
		err = s.Store.View(func(r record.Reader) error {
			row, err := r.Get(registryv1.Table_TABLE_SERVICE, service.GetId())
			service.CreateIndex, service.ModifyIndex = row.GetCreateIndex(), row.GetModifyIndex()
			return err
		})
	}
	return resp, err
}

// Deregister removes an instance with its checks.
func (s *catalogService) Deregister(ctx context.Context, req *registryv1.DeregisterRequest) (*registryv1.DeregisterResponse, error) {
	cmd, err := s.Services.Deregister(req)
	if err != nil {
		return nil, err
	}
	result, err := s.commit(ctx, cmd)
	if err != nil {
		return nil, err
	}
	if result.GetChanged() == 0 {
		return nil, catalog.ServiceNotFound(req.GetServiceId())
	}
	return &registryv1.DeregisterResponse{Meta: s.writeMeta(result.GetIndex())}, nil
}

// UpdateChecks records check outcomes.
func (s *catalogService) UpdateChecks(ctx context.Context, req *registryv1.UpdateChecksRequest) (*registryv1.UpdateChecksResponse, error) {
	result, err := s.planned(ctx, req.GetRequestId(), func(r record.Reader) (*registryv1.Command, error) {
		return s.Services.UpdateChecks(r, req, s.Clock.Now())
	})
	if err != nil {
		return nil, err
	}
	if err := moved(result); err != nil {
		return nil, err
	}
	return &registryv1.UpdateChecksResponse{Meta: s.writeMeta(result.GetIndex())}, nil
}

// QueryService answers the instances of a service.
func (s *catalogService) QueryService(ctx context.Context, req *registryv1.QueryServiceRequest) (*registryv1.QueryServiceResponse, error) {
	if err := s.Services.CheckServiceName(req.GetService()); err != nil {
		return nil, err
	}
	resp := &registryv1.QueryServiceResponse{}
	index, err := s.answer(ctx, req, func() (a catalog.Answer) {
		resp.Instances, a = s.Catalog.Query(req.GetService(), req.GetPassingOnly(), req.GetTags())
		return a
	})
	resp.Meta = s.queryMeta(index)
	return resp, err
}

// ListServices answers the names in the catalogue.
func (s *catalogService) ListServices(ctx context.Context, req *registryv1.ListServicesRequest) (*registryv1.ListServicesResponse, error) {
	resp := &registryv1.ListServicesResponse{}
	index, err := s.answer(ctx, req, func() (a catalog.Answer) {
		resp.Services, a = s.Catalog.Services()
		return a
	})
	resp.Meta = s.queryMeta(index)
	return resp, err
}

// ListNodes answers the nodes in the catalogue.
func (s *catalogService) ListNodes(ctx context.Context, req *registryv1.ListNodesRequest) (*registryv1.ListNodesResponse, error) {
	resp := &registryv1.ListNodesResponse{}
	index, err := s.answer(ctx, req, func() (a catalog.Answer) {
		resp.Nodes, a = s.Catalog.Nodes()
		return a
	})
	resp.Meta = s.queryMeta(index)
	return resp, err
}

// answer reads from the catalogue in memory, after blocking if the request asks for it.
func (s *catalogService) answer(ctx context.Context, req blocking, read func() catalog.Answer) (uint64, error) {
	var filters []watch.Filter
	for _, table := range catalog.Tables() {
		filters = append(filters, watch.Filter{Table: table})
	}
	err := s.block(ctx, req, filters, func(uint64) (uint64, error) { return read().Changed, nil })
	if err != nil {
		return 0, err
	}
	return read().Index, nil
}

// SetFailoverPolicy creates or replaces a policy.
func (s *catalogService) SetFailoverPolicy(ctx context.Context, req *registryv1.SetFailoverPolicyRequest) (*registryv1.SetFailoverPolicyResponse, error) {
	cmd, err := s.Services.SetFailoverPolicy(req)
	if err != nil {
		return nil, err
	}
	result, err := s.commit(ctx, cmd)
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
		resp.Meta = s.queryMeta(r.Index())
		return err
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

func moved(result *registryv1.CommandResult) error {
	if result.GetFailedReason() == "" {
		return nil
	}
	return catalog.Moved()
}
