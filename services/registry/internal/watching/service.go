package watching

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/catalog"
	"konsul.dev/services/registry/internal/changes"
	"konsul.dev/services/registry/internal/kv"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/watch"
)

// usualHeartbeat is how often a stream has a message at least, if its caller does not say.
const usualHeartbeat = 5 * time.Second

// aheadPatience is how long a watcher may be ahead of this server.
const aheadPatience = 10 * time.Second

// Router finds other datacenters.
type Router interface {
	Resolve(name string) (string, error)
	Stream(ctx context.Context, target string) (grpc.ClientConnInterface, context.Context, error)
	FarError(ctx context.Context, target string, err error) error
}

// Service implements registryv1.WatchServiceServer.
type Service struct {
	registryv1.UnimplementedWatchServiceServer

	Source     changes.Source
	Clock      clock.Clock
	Datacenter string
	Catalog    *catalog.View
	Services   *catalog.Writer
	Tokens     *acl.View
	Router     Router
	// Open admits a stream of the holder of a token; release is called when it ends.
	Open func(holder string) (release func(), err error)
	// Denied writes down that a call was denied.
	Denied func(ctx context.Context, method string, err error)
	// Meta dates an answer about local or global records, as of an index.
	Meta func(global bool, index uint64) *registryv1.QueryMeta
	// StateTime returns up to when what this server shows is known to be the leader's state.
	StateTime func() *timestamppb.Timestamp
}

// Register adds the service to a server.
func (s *Service) Register(server grpc.ServiceRegistrar) {
	registryv1.RegisterWatchServiceServer(server, s)
}

// mayWatch returns why the caller may not watch a table at all. Services may watch some on their
// own account: a host that has an agent, or a gateway, is not to have every key.
func (s *Service) mayWatch(ctx context.Context, table record.Table) error {
	caller := rpc.CallerFrom(ctx)
	switch table.Watch {
	case record.WatchedByNobody:
		return fault.Invalid("table", "%s cannot be watched", table.ID).WithRemedy("watch one of " + strings.Join(watchable(), ", "))
	case record.WatchedByUsers:
	case record.WatchedByOwn:
		if caller.Peer.Datacenter == s.Datacenter {
			return nil
		}
	case record.WatchedByAll:
		return nil
	}
	if caller.Accessor != "" {
		return nil
	}
	err := fault.New(fault.PermissionDenied, rpc.ReasonPeerDenied, "%s may not watch %s without a user's token", caller.Peer, table.ID)
	s.Denied(ctx, registryv1.WatchService_Watch_FullMethodName, err)
	return err
}

// watchable returns the names of the tables that users may watch.
func watchable() []string {
	var names []string
	for _, t := range record.Tables() {
		if t.Watch != record.WatchedByNobody {
			names = append(names, t.Name())
		}
	}
	return names
}

// Watch streams the rows that match, from an index on.
func (s *Service) Watch(req *registryv1.WatchRequest, stream grpc.ServerStreamingServer[registryv1.WatchResponse]) error {
	ctx := stream.Context()
	release, err := s.Open(rpc.CallerFrom(ctx).Accessor)
	if err != nil {
		return err
	}
	defer release()
	target, err := s.Router.Resolve(req.GetDatacenter())
	if err != nil {
		return err
	}
	if target != s.Datacenter {
		return relay(s.Router, target, stream, func(ctx context.Context, far registryv1.WatchServiceClient) (grpc.ServerStreamingClient[registryv1.WatchResponse], error) {
			return far.Watch(ctx, req)
		})
	}
	if err := s.mayWatch(ctx, record.Tables().Of(req.GetTable())); err != nil {
		return err
	}
	filters, err := filtersOf(req)
	if err != nil {
		return err
	}
	if err := seesSome(s.Catalog, acl.From(ctx), filters); err != nil {
		s.Denied(ctx, registryv1.WatchService_Watch_FullMethodName, err)
		return err
	}
	heartbeat, err := changes.Heartbeat(req.GetHeartbeat(), usualHeartbeat)
	if err != nil {
		return err
	}
	w := watcher{
		Service: s, stream: stream, filters: filters, rights: acl.From(ctx), since: req.GetIndex(),
		global: slices.ContainsFunc(filters, func(f watch.Filter) bool { return record.Global(f.Table, f.Prefix) }),
	}
	return w.run(heartbeat)
}

// filtersOf returns the rows that a request names.
func filtersOf(req *registryv1.WatchRequest) ([]watch.Filter, error) {
	table := req.GetTable()
	named := 0
	for _, value := range []string{req.GetPrefix(), req.GetKey(), req.GetKeyPrefix()} {
		if value != "" {
			named++
		}
	}
	switch {
	case named > 1:
		return nil, fault.Invalid("key", "is given together with another of key, prefix and key_prefix").WithRemedy("give one of them")
	case req.GetKeyPrefix() != "" && table != registryv1.Table_TABLE_KV:
		return nil, fault.Invalid("key_prefix", "is for the kv table").WithRemedy("use prefix")
	case req.GetKeyPrefix() != "":
		prefix, err := record.ParsePrefix(req.GetKeyPrefix(), registryv1.Scope_SCOPE_UNSPECIFIED)
		if err != nil {
			return nil, err
		}
		return kv.Filters(prefix, false), nil
	case req.GetKey() != "" && table == registryv1.Table_TABLE_KV:
		key, err := record.ParseKey(req.GetKey(), registryv1.Scope_SCOPE_UNSPECIFIED)
		if err != nil {
			return nil, err
		}
		return kv.Filters(key, true), nil
	case req.GetKey() != "":
		return []watch.Filter{{Table: table, Prefix: req.GetKey(), Exact: true}}, nil
	}
	return []watch.Filter{{Table: table, Prefix: req.GetPrefix()}}, nil
}

// relay passes a stream on from another datacenter.
func relay[Resp any](router Router, target string, stream grpc.ServerStreamingServer[Resp],
	open func(context.Context, registryv1.WatchServiceClient) (grpc.ServerStreamingClient[Resp], error),
) error {
	conn, ctx, err := router.Stream(stream.Context(), target)
	if err != nil {
		return err
	}
	farError := func(err error) error { return router.FarError(ctx, target, err) }
	far, err := open(ctx, registryv1.NewWatchServiceClient(conn))
	if err != nil {
		return farError(err)
	}
	return changes.Relay(far, stream, farError)
}
