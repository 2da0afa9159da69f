package replication

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/changes"
	"konsul.dev/services/registry/internal/federation"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/watch"
)

// ReasonResync says that a stream's reader fell behind and has to start again from its cursor.
const ReasonResync = "RESYNC"

const usualHeartbeat = time.Second

// Replicate streams global records to another datacenter: what changed since its cursor, or
// everything when that cannot be told any more, then what commits.
func (s *Service) Replicate(req *federationv1.ReplicationRequest, stream grpc.ServerStreamingServer[federationv1.ReplicationResponse]) error {
	heartbeat, err := changes.Heartbeat(req.GetHeartbeat(), usualHeartbeat)
	if err != nil {
		return err
	}
	c := copying{Service: s, req: req, stream: stream}
	if err := c.check(); err != nil {
		return err
	}
	if err := s.claim(stream.Context(), req); err != nil {
		return err
	}
	return c.run(heartbeat)
}

// copying is one stream of global rows.
type copying struct {
	*Service
	req    *federationv1.ReplicationRequest
	stream grpc.ServerStreamingServer[federationv1.ReplicationResponse]
}

// check refuses what must not be copied from here.
func (c *copying) check() error {
	applied := uint64(0)
	err := c.Source.Store.View(func(r record.Reader) error {
		applied = r.Index()
		return nil
	})
	if err != nil {
		return err
	}
	return c.Federation.CheckSource(c.req, applied)
}

func (c *copying) run(heartbeat time.Duration) error {
	c.Source.Metrics.Streams.Inc()
	defer c.Source.Metrics.Streams.Dec()
	var filters []watch.Filter
	for _, t := range record.Tables().Replicated() {
		filters = append(filters, watch.Filter{Table: t.ID, Prefix: t.GlobalKeys()})
	}
	sub := c.Source.Hub.Subscribe(filters...)
	defer sub.Close()
	since := uint64(c.req.GetLastReplicatedIndex()) //nolint:gosec // CheckSource refused negative ones
	fullSync := c.Source.Forgotten(since)
	if fullSync {
		since = 0
	}
	rows, index, err := c.Source.Read(filters, since)
	if err != nil {
		return err
	}
	sent := max(index, since)
	if err := c.emit(rows, sent, fullSync); err != nil {
		return err
	}
	sub.Skip(sent)
	return c.Source.Follow(c.stream.Context(), sub, heartbeat, func(d *watch.Delta) (bool, error) {
		if d == nil {
			c.Source.Metrics.Resyncs.Inc()
			return false, fault.New(fault.OutOfRange, ReasonResync, "the copy fell behind the stream").WithRemedy("start again from the cursor")
		}
		sent = max(sent, d.Index)
		return true, c.emit(d.Rows, sent, false)
	})
}

// emit sends rows in pieces, all of which have the index of the whole: a copy compares it with
// where it stands. Only the last one is complete.
func (c *copying) emit(rows []*registryv1.Record, index uint64, fullSync bool) error {
	return changes.InPieces(inOrder(rows), func(rows []*registryv1.Record, last bool) error {
		// The epoch may have moved since the stream began.
		if err := c.check(); err != nil {
			return err
		}
		resp := &federationv1.ReplicationResponse{
			CurrentIndex:     int64(index), //nolint:gosec // Raft indexes stay far below 2^63; the type is the ADR's
			FullSyncRequired: fullSync, Epoch: c.Federation.Epoch(), SourceTime: c.StateTime(), Complete: last,
		}
		for _, row := range rows {
			if entry, ok := c.Federation.Entry(row, c.req.GetPrefixes()); ok {
				resp.Entries = append(resp.Entries, entry)
			}
		}
		return c.stream.Send(resp)
	})
}

// inOrder returns rows as a copy is to apply them: by the order of their tables, then by index.
func inOrder(rows []*registryv1.Record) []*registryv1.Record {
	order := func(r *registryv1.Record) record.Order { return record.Tables().Of(r.GetTable()).Order }
	sorted := slices.Clone(rows) // Other subscriptions read them too.
	slices.SortStableFunc(sorted, func(a, b *registryv1.Record) int {
		return cmp.Or(cmp.Compare(order(a), order(b)), cmp.Compare(a.GetModifyIndex(), b.GetModifyIndex()))
	})
	return sorted
}

// claim records which registry copies as a datacenter, and refuses a second one of its name. What
// it says counts only if the caller is of that datacenter.
func (s *Service) claim(ctx context.Context, req *federationv1.ReplicationRequest) error {
	target, lineage := req.GetTargetDc(), req.GetTargetLineageId()
	if lineage == "" || rpc.CallerFrom(ctx).Peer.Datacenter != target {
		return nil
	}
	var cmd *registryv1.Command
	err := s.Source.Store.View(func(r record.Reader) (err error) {
		cmd, err = federation.Claim(r, target, lineage)
		return err
	})
	if err != nil {
		s.Metrics.secondLineages.Inc()
		s.Log.Error("a second registry copies under a datacenter's name", obs.KeyTargetDC, target, obs.KeyError, err)
		return err
	}
	if cmd == nil {
		return nil
	}
	// A race is settled at the next stream; a leader that is away is no reason not to copy.
	if _, err := s.Commit(ctx, cmd); err != nil {
		s.Log.Warn("could not record which registry copies", obs.KeyTargetDC, target, obs.KeyError, err)
	}
	return nil
}
