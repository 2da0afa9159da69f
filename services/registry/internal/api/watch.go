package api

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/watch"
)

const (
	// watchBuffer is how many changed rows may wait for a watcher before it has to start again.
	watchBuffer      = 8192
	defaultHeartbeat = 5 * time.Second
	leastHeartbeat   = 100 * time.Millisecond
	// A message of a stream ends after this many rows or bytes.
	chunkRows  = 1000
	chunkBytes = 1 << 20
)

type watchService struct {
	registryv1.UnimplementedWatchServiceServer
	*Core
}

// watchable are the tables whose rows hold nothing secret.
func watchable(table registryv1.Table) bool {
	switch table {
	case registryv1.Table_TABLE_KV, registryv1.Table_TABLE_NODE, registryv1.Table_TABLE_SERVICE, registryv1.Table_TABLE_CHECK,
		registryv1.Table_TABLE_FAILOVER_POLICY, registryv1.Table_TABLE_CA_ROOT, registryv1.Table_TABLE_FEDERATION,
		registryv1.Table_TABLE_DATACENTER, registryv1.Table_TABLE_REPLICATION_CURSOR:
		return true
	}
	return false
}

// shared are the tables that services of other datacenters may watch on their own account: what discovery
// and failover need. Keys are local until a user's token says who asks for them.
func shared(table registryv1.Table) bool {
	switch table {
	case registryv1.Table_TABLE_NODE, registryv1.Table_TABLE_SERVICE, registryv1.Table_TABLE_CHECK,
		registryv1.Table_TABLE_FAILOVER_POLICY, registryv1.Table_TABLE_CA_ROOT, registryv1.Table_TABLE_FEDERATION, registryv1.Table_TABLE_DATACENTER:
		return true
	}
	return false
}

func (s *watchService) mayWatch(ctx context.Context, table registryv1.Table) error {
	caller := rpc.CallerFrom(ctx)
	if caller.Accessor != "" || caller.Peer.Datacenter == s.Federation.Datacenter() || shared(table) {
		return nil
	}
	return fault.New(fault.PermissionDenied, rpc.ReasonPeerDenied, "%s may not watch %s without a user's token", caller.Peer, table)
}

// Watch streams the rows that match, from an index on.
func (s *watchService) Watch(req *registryv1.WatchRequest, stream grpc.ServerStreamingServer[registryv1.WatchResponse]) error {
	target, err := s.Router.Resolve(req.GetDatacenter())
	if err != nil {
		return err
	}
	if target != s.Federation.Datacenter() {
		return s.relay(target, req, stream)
	}
	if !watchable(req.GetTable()) {
		return fault.Invalid("table", "%s cannot be watched", req.GetTable()).WithRemedy("watch kv, node, service, check, failover policy, ca root, federation or datacenter")
	}
	if err := s.mayWatch(stream.Context(), req.GetTable()); err != nil {
		return err
	}
	heartbeat, err := heartbeatOf(req.GetHeartbeat(), defaultHeartbeat)
	if err != nil {
		return err
	}
	w := watcher{
		Core: s.Core, since: req.GetIndex(), heartbeat: heartbeat,
		filters: []watch.Filter{{Table: req.GetTable(), Prefix: req.GetPrefix()}},
		send: func(m message) error {
			return stream.Send(&registryv1.WatchResponse{
				Records: m.rows, Index: m.index, Time: s.stateTime(), Resync: m.resync, Synced: m.synced, Meta: s.queryMeta(m.index),
			})
		},
	}
	return w.run(stream.Context())
}

// relay passes a watch on to another datacenter.
func (s *watchService) relay(target string, req *registryv1.WatchRequest, stream grpc.ServerStreamingServer[registryv1.WatchResponse]) error {
	conn, ctx, err := s.Router.Stream(stream.Context(), target)
	if err != nil {
		return err
	}
	far, err := registryv1.NewWatchServiceClient(conn).Watch(ctx, req)
	if err != nil {
		return s.Router.FarError(ctx, target, err)
	}
	for {
		resp, err := far.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return s.Router.FarError(ctx, target, err)
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

// message is what a watcher sends.
type message struct {
	rows   []*registryv1.Record
	index  uint64
	resync bool
	// synced says that the rows up to index are all sent; it stays true once it is.
	synced bool
	// complete says so of this message.
	complete bool
	// full says that the rows are everything there is, not a delta.
	full bool
}

// watcher streams rows from an index on: first what changed since then, later what commits.
type watcher struct {
	*Core
	since     uint64
	heartbeat time.Duration
	filters   []watch.Filter
	send      func(message) error
	// fullSync answers an index that is too old with everything instead of a resync.
	fullSync bool
	synced   bool
	sent     uint64
}

func (w *watcher) run(ctx context.Context) error {
	w.Metrics.watchers.Inc()
	defer w.Metrics.watchers.Dec()
	sub := w.Hub.Subscribe(watchBuffer, w.filters...)
	defer sub.Close()
	full := w.since == 0
	if !full && w.since < w.Store.Watermark() {
		if !w.fullSync {
			w.Metrics.resyncs.Inc()
			return w.send(message{index: w.since, resync: true})
		}
		full, w.since = true, 0
	}
	w.sent = w.since
	rows, index, err := w.state(full)
	if err != nil {
		return err
	}
	if err := w.emit(rows, max(index, w.since), full); err != nil {
		return err
	}
	return w.follow(ctx, sub)
}

// state reads what to send first: everything, or what changed after since with its tombstones.
func (w *watcher) state(full bool) ([]*registryv1.Record, uint64, error) {
	var rows []*registryv1.Record
	var index uint64
	err := w.Store.View(func(r record.Reader) error {
		index = r.Index()
		for _, f := range w.filters {
			options := record.ScanOptions{Prefix: f.Prefix, Since: w.since, Deleted: !full}
			err := r.Scan(f.Table, options, func(row *registryv1.Record) bool {
				rows = append(rows, row)
				return true
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if !full || w.fullSync {
		slices.SortStableFunc(rows, func(a, b *registryv1.Record) int { return cmp.Compare(a.GetModifyIndex(), b.GetModifyIndex()) })
	}
	return rows, index, err
}

// emit sends rows in pieces; only the last one says that everything up to index is sent.
func (w *watcher) emit(rows []*registryv1.Record, index uint64, full bool) error {
	for {
		n := chunk(rows)
		m := message{rows: rows[:n], index: w.sent, full: full, synced: w.synced}
		rows = rows[n:]
		if len(rows) == 0 {
			w.synced, w.sent = true, max(w.sent, index)
			m.index, m.synced, m.complete = w.sent, true, true
		}
		if err := w.send(m); err != nil {
			return err
		}
		if len(rows) == 0 {
			return nil
		}
	}
}

func chunk(rows []*registryv1.Record) int {
	size := 0
	for n, r := range rows {
		size += len(r.GetKey()) + len(r.GetValue())
		if n == chunkRows || size > chunkBytes && n > 0 {
			return n
		}
	}
	return len(rows)
}

// follow sends what commits, and a heartbeat when nothing does.
func (w *watcher) follow(ctx context.Context, sub *watch.Subscription) error {
	timer := time.NewTimer(w.heartbeat)
	defer timer.Stop()
	for {
		select {
		case <-sub.Wake():
		case <-timer.C:
		case <-w.Draining:
			return w.draining()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		rows, index, lagged := sub.Take()
		if lagged {
			w.Metrics.resyncs.Inc()
			return w.send(message{index: w.sent, resync: true, synced: w.synced})
		}
		// The state that was sent first may have held them already.
		rows = slices.DeleteFunc(rows, func(r *registryv1.Record) bool { return r.GetModifyIndex() <= w.sent })
		if err := w.emit(rows, index, false); err != nil {
			return err
		}
		timer.Reset(w.heartbeat)
	}
}
