package api

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/watch"
)

const (
	defaultHeartbeat = 5 * time.Second
	leastHeartbeat   = 100 * time.Millisecond
)

type watchService struct {
	registryv1.UnimplementedWatchServiceServer
	*Core
}

// mayWatch returns why the caller may not watch a table at all. Services may watch some on their own
// account: a host that has an agent, or a gateway, is not to have every key.
func (s *watchService) mayWatch(ctx context.Context, table record.Table) error {
	caller := rpc.CallerFrom(ctx)
	switch table.Watch {
	case record.WatchedByNobody:
		return fault.Invalid("table", "%s cannot be watched", table.ID).WithRemedy("watch one of " + strings.Join(watchable(), ", "))
	case record.WatchedByUsers:
	case record.WatchedByOwn:
		if caller.Peer.Datacenter == s.Federation.Datacenter() {
			return nil
		}
	case record.WatchedByAll:
		return nil
	}
	if caller.Accessor != "" {
		return nil
	}
	err := fault.New(fault.PermissionDenied, rpc.ReasonPeerDenied, "%s may not watch %s without a user's token", caller.Peer, table.ID)
	s.Audit.Denied(ctx, entryOf(ctx, registryv1.WatchService_Watch_FullMethodName, err))
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
func (s *watchService) Watch(req *registryv1.WatchRequest, stream grpc.ServerStreamingServer[registryv1.WatchResponse]) error {
	release, err := s.Quotas.Watch(rpc.CallerFrom(stream.Context()).Accessor)
	if err != nil {
		return err
	}
	defer release()
	target, err := s.Router.Resolve(req.GetDatacenter())
	if err != nil {
		return err
	}
	if target != s.Federation.Datacenter() {
		return relay(s.Core, target, stream, func(ctx context.Context, far registryv1.WatchServiceClient) (grpc.ServerStreamingClient[registryv1.WatchResponse], error) {
			return far.Watch(ctx, req)
		})
	}
	if err := s.mayWatch(stream.Context(), record.Tables().Of(req.GetTable())); err != nil {
		return err
	}
	filters, err := watched(req)
	if err != nil {
		return err
	}
	if err := s.seesSome(acl.From(stream.Context()), filters); err != nil {
		s.Audit.Denied(stream.Context(), entryOf(stream.Context(), registryv1.WatchService_Watch_FullMethodName, err))
		return err
	}
	heartbeat, err := heartbeatOf(req.GetHeartbeat(), defaultHeartbeat)
	if err != nil {
		return err
	}
	global := slices.ContainsFunc(filters, func(f watch.Filter) bool { return record.Global(f.Table, f.Prefix) })
	w := watcher{
		Core: s.Core, since: req.GetIndex(), heartbeat: heartbeat, rights: acl.From(stream.Context()), filters: filters,
		send: func(m message) error {
			if m.shared == nil {
				return stream.Send(s.watchResponse(m, global))
			}
			return stream.Send(watch.Share(m.shared, s.Clock.Now(), sharedFor, func() *registryv1.WatchResponse {
				return encoded(s.watchResponse(m, global))
			}))
		},
	}
	return w.run(stream.Context())
}

// sharedFor is how long the time in a shared message is near enough.
const sharedFor = 50 * time.Millisecond

func (s *watchService) watchResponse(m message, global bool) *registryv1.WatchResponse {
	meta := s.metaOf(global, m.index)
	meta.ResultsFiltered = m.filtered
	return &registryv1.WatchResponse{Records: m.rows, Index: m.index, Time: s.stateTime(), Resync: m.resync, Synced: m.synced, Meta: meta}
}

// encoded answers a message that is encoded already, for those who only pass it on to a connection: its fields
// are kept where a message keeps fields that it does not know, and are sent as they stand.
func encoded[M any, P interface {
	*M
	proto.Message
}](m P) P {
	content, err := proto.Marshal(m)
	if err != nil {
		return m // Sending it says why.
	}
	out := P(new(M))
	out.ProtoReflect().SetUnknown(content)
	return out
}

// watched answers the rows that a request names.
func watched(req *registryv1.WatchRequest) ([]watch.Filter, error) {
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
		return kvFilters(prefix, false), nil
	case req.GetKey() != "" && table == registryv1.Table_TABLE_KV:
		key, err := record.ParseKey(req.GetKey(), registryv1.Scope_SCOPE_UNSPECIFIED)
		if err != nil {
			return nil, err
		}
		return kvFilters(key, true), nil
	case req.GetKey() != "":
		return []watch.Filter{{Table: table, Prefix: req.GetKey(), Exact: true}}, nil
	}
	return []watch.Filter{{Table: table, Prefix: req.GetPrefix()}}, nil
}

// relay passes a stream on from another datacenter.
func relay[Resp any](c *Core, target string, stream grpc.ServerStreamingServer[Resp],
	open func(context.Context, registryv1.WatchServiceClient) (grpc.ServerStreamingClient[Resp], error),
) error {
	conn, ctx, err := c.Router.Stream(stream.Context(), target)
	if err != nil {
		return err
	}
	far, err := open(ctx, registryv1.NewWatchServiceClient(conn))
	if err != nil {
		return c.Router.FarError(ctx, target, err)
	}
	for {
		resp, err := far.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return c.Router.FarError(ctx, target, err)
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

func heartbeatOf(d *durationpb.Duration, fallback time.Duration) (time.Duration, error) {
	if d == nil {
		return fallback, nil
	}
	if heartbeat := d.AsDuration(); d.IsValid() && heartbeat >= leastHeartbeat && heartbeat <= longestWait {
		return heartbeat, nil
	}
	return 0, fault.Invalid("heartbeat", "%v is not between %v and %v", d.AsDuration(), leastHeartbeat, longestWait)
}
