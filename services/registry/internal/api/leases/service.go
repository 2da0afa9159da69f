package leases

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/api"
	"konsul.dev/services/registry/internal/changes"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/lease"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/watch"
)

// Service returns where the leader is: it alone knows how long a lease has to go.
type Service struct {
	registryv1.UnimplementedLeaseServiceServer
	*api.Core
	Writer lease.Writer
	Keeper *lease.Keeper
	// Seen reports whether a request was carried out.
	Seen func(requestID string) bool
}

// needsOfLease returns what using a lease of a name takes: as much as the local key of that name
// does.
func needsOfLease(name string, access acl.Access) []acl.Need {
	return []acl.Need{{Resource: acl.KV, Name: record.LocalPrefix + name, Access: access}}
}

// Grant makes a lease.
func (s *Service) Grant(ctx context.Context, req *registryv1.GrantLeaseRequest) (*registryv1.GrantLeaseResponse, error) {
	holder := rpc.CallerFrom(ctx).Accessor
	cmd, granted, err := s.Writer.Grant(req, holder)
	if err != nil {
		return nil, err
	}
	// A request made again has its lease already.
	if !s.Seen(req.GetRequestId()) {
		if err := s.Quotas.Lease(holder); err != nil {
			return nil, err
		}
	}
	result, err := s.Commit(ctx, cmd)
	if err != nil {
		return nil, err
	}
	if err := lease.Outcome(result, granted.GetId()); err != nil {
		return nil, err
	}
	for _, row := range result.GetWritten() {
		granted.GrantedAt, granted.CreateIndex = row.GetOriginTime(), row.GetCreateIndex()
	}
	granted.Remaining = granted.GetTtl()
	return &registryv1.GrantLeaseResponse{Lease: granted, Meta: s.WriteMeta(result.GetIndex())}, nil
}

// permitted reads a lease that the call's token may use.
func (s *Service) permitted(ctx context.Context, method string, r record.Reader, id string, access acl.Access) (*registryv1.Record, *registryv1.Lease, error) {
	row, err := lease.Row(r, id)
	if err != nil {
		return nil, nil, err
	}
	found, err := lease.Decode(row)
	if err != nil {
		return nil, nil, err
	}
	return row, found, s.Permit(ctx, method, needsOfLease(found.GetName(), access))
}

// KeepAlive begins a lease's time anew, in this leader's memory alone.
func (s *Service) KeepAlive(ctx context.Context, req *registryv1.KeepLeaseAliveRequest) (*registryv1.KeepLeaseAliveResponse, error) {
	var found *registryv1.Lease
	err := s.Store.View(func(r record.Reader) (err error) {
		_, found, err = s.permitted(ctx, registryv1.LeaseService_KeepAlive_FullMethodName, r, req.GetId(), acl.Write)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := s.Keeper.KeepAlive(req.GetId(), found.GetTtl().AsDuration()); err != nil {
		return nil, err
	}
	// Whoever leads after this one gives every lease its whole time, so a promise made while it
	// leads holds.
	if err := s.Node.CheckLeader(); err != nil {
		return nil, err
	}
	return &registryv1.KeepLeaseAliveResponse{Ttl: found.GetTtl()}, nil
}

// Revoke ends a lease. It is over with the first commit; what is attached to it may take several.
func (s *Service) Revoke(ctx context.Context, req *registryv1.RevokeLeaseRequest) (*registryv1.RevokeLeaseResponse, error) {
	// A request made again finds the lease gone, and hears of its first outcome by its id.
	id := req.GetRequestId()
	var row *registryv1.Record
	attached := 0
	err := s.Store.View(func(r record.Reader) (err error) {
		if row, _, err = s.permitted(ctx, registryv1.LeaseService_Revoke_FullMethodName, r, req.GetId(), acl.Write); err != nil {
			return err
		}
		attached, err = s.Keeper.Weight(r, req.GetId())
		return err
	})
	if err != nil && !s.Seen(id) {
		return nil, err
	}
	if row == nil {
		row = &registryv1.Record{Key: lease.Key(req.GetId())}
	}
	result, err := s.Sweep(ctx, attached, s.Keeper.End(id, row))
	if err != nil {
		return nil, err
	}
	if err := lease.Outcome(result, req.GetId()); err != nil {
		return nil, err
	}
	index := result.GetIndex()
	if result.GetMore() {
		if index, err = s.gone(ctx, req.GetId()); err != nil {
			return nil, err
		}
	}
	return &registryv1.RevokeLeaseResponse{Meta: s.WriteMeta(index)}, nil
}

// gone waits until nothing is left of what was attached to a lease that has ended, and returns an
// index as of which that is so.
func (s *Service) gone(ctx context.Context, id string) (index uint64, err error) {
	sub := s.Hub.Listen(watch.Filter{Table: registryv1.Table_TABLE_LEASE, Prefix: fsm.EndingRow(id).GetKey(), Exact: true})
	defer sub.Close()
	check := time.NewTicker(api.LeaderCheck)
	defer check.Stop()
	for {
		gone := false
		err := s.Store.View(func(r record.Reader) (err error) {
			index = r.Index()
			gone, err = lease.Gone(r, id)
			return err
		})
		if err != nil || gone {
			return index, err
		}
		select {
		case <-sub.Wake():
		case <-check.C:
			if err := s.Node.CheckLeader(); err != nil {
				return 0, err
			}
		case <-s.Draining:
			return 0, changes.Draining()
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// Get reads one lease.
func (s *Service) Get(ctx context.Context, req *registryv1.GetLeaseRequest) (*registryv1.GetLeaseResponse, error) {
	resp := &registryv1.GetLeaseResponse{}
	err := s.Store.View(func(r record.Reader) (err error) {
		if _, resp.Lease, err = s.permitted(ctx, registryv1.LeaseService_Get_FullMethodName, r, req.GetId(), acl.Read); err != nil {
			return err
		}
		resp.Keys, resp.Locks, err = lease.Attached(r, req.GetId())
		resp.Meta = s.QueryMeta(r.Index())
		return err
	})
	if err != nil {
		return nil, err
	}
	s.fillRemaining(resp.GetLease())
	return resp, nil
}

// List returns all leases that the call's token may see.
func (s *Service) List(ctx context.Context, _ *registryv1.ListLeasesRequest) (*registryv1.ListLeasesResponse, error) {
	resp := &registryv1.ListLeasesResponse{}
	filtered := false
	may := api.Sees(ctx, acl.KV, acl.List, &filtered)
	err := s.Store.View(func(r record.Reader) error {
		resp.Meta = s.QueryMeta(r.Index())
		return lease.Each(r, func(_ *registryv1.Record, l *registryv1.Lease) error {
			if may == nil || may(record.LocalPrefix+l.GetName()) {
				s.fillRemaining(l)
				resp.Leases = append(resp.Leases, l)
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	resp.Meta.ResultsFiltered = filtered
	return resp, nil
}

// fillRemaining says how long a lease has to go: its whole time while a new leader has not begun to
// count.
func (s *Service) fillRemaining(l *registryv1.Lease) {
	l.Remaining = l.GetTtl()
	if left, known := s.Keeper.Left(l.GetId()); known {
		l.Remaining = durationpb.New(left)
	}
}
