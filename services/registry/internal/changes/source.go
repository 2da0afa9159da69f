package changes

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/watch"
)

// ReasonDraining says that the server is stopping: another one will answer.
const ReasonDraining = "DRAINING"

// Source is where changes come from.
type Source struct {
	Store record.Store
	Hub   *watch.Hub
	// Draining is closed when streams should end.
	Draining <-chan struct{}
	Metrics  *Metrics
}

// Forgotten reports whether deletes since an index may be forgotten: what changed since then cannot
// be told any more.
func (s Source) Forgotten(since uint64) bool { return since > 0 && since < s.Store.Watermark() }

// Read returns the rows that match filters, and the index they are read at: from index 0 the live
// ones, table by table; otherwise those that changed after since, with tombstones, in the order of
// their modify indexes.
func (s Source) Read(filters []watch.Filter, since uint64) ([]*registryv1.Record, uint64, error) {
	var rows []*registryv1.Record
	var index uint64
	err := s.Store.View(func(r record.Reader) error {
		index = r.Index()
		for _, f := range filters {
			err := read(r, f, since, func(row *registryv1.Record) bool {
				rows = append(rows, row)
				return true
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if since > 0 {
		slices.SortStableFunc(rows, func(a, b *registryv1.Record) int { return cmp.Compare(a.GetModifyIndex(), b.GetModifyIndex()) })
	}
	return rows, index, err
}

func read(r record.Reader, f watch.Filter, since uint64, fn func(*registryv1.Record) bool) error {
	if !f.Exact {
		return r.Scan(f.Table, record.ScanOptions{Prefix: f.Prefix, Since: since, Deleted: since > 0}, fn)
	}
	row, err := r.Get(f.Table, f.Prefix)
	if err == nil && row.GetModifyIndex() > since && (record.Live(row) || since > 0) {
		fn(row)
	}
	return err
}

// Follow calls pass with what commits, and with an empty delta when nothing did for a heartbeat,
// until pass returns false or an error, ctx ends, or the server stops. A nil delta says that
// changes were lost: the next call would be given no more.
func (s Source) Follow(ctx context.Context, sub *watch.Subscription, heartbeat time.Duration, pass func(*watch.Delta) (bool, error)) error {
	timer := time.NewTimer(Jittered(heartbeat))
	defer timer.Stop()
	for {
		select {
		case <-sub.Wake():
		case <-timer.C:
		case <-s.Draining:
			return Draining()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		delta, known := sub.Take()
		if !known {
			delta = nil
		}
		if more, err := pass(delta); err != nil || !more {
			return err
		}
		timer.Reset(Jittered(heartbeat))
	}
}

// Relay sends what comes in on a stream of another server. farError is what an error of that stream
// becomes.
func Relay[M any](far grpc.ServerStreamingClient[M], to grpc.ServerStreamingServer[M], farError func(error) error) error {
	for {
		message, err := far.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return farError(err)
		}
		if err := to.Send(message); err != nil {
			return err
		}
	}
}

// Jittered returns somewhat less than an interval, so that watchers that came together do not keep
// step.
func Jittered(interval time.Duration) time.Duration { return interval - rand.N(interval/8+1) }

// Draining is the refusal of a server that is stopping.
func Draining() error {
	return fault.New(fault.Unavailable, ReasonDraining, "this server is stopping").WithRetryAfter(100 * time.Millisecond)
}

// A message of a stream ends after this many rows or bytes.
const (
	pieceRows  = 1000
	pieceBytes = 1 << 20
)

// Fits reports whether rows fit into one message.
func Fits(rows []*registryv1.Record) bool { return piece(rows) == len(rows) }

// InPieces calls send with rows that fit into one message each, in their order. It calls it at
// least once; last is true in the last call.
func InPieces(rows []*registryv1.Record, send func(rows []*registryv1.Record, last bool) error) error {
	for {
		n := piece(rows)
		last := n == len(rows)
		if err := send(rows[:n], last); err != nil || last {
			return err
		}
		rows = rows[n:]
	}
}

func piece(rows []*registryv1.Record) int {
	size := 0
	for n, r := range rows {
		size += len(r.GetKey()) + len(r.GetValue())
		if n == pieceRows || size > pieceBytes && n > 0 {
			return n
		}
	}
	return len(rows)
}

const (
	shortestHeartbeat = 100 * time.Millisecond
	longestHeartbeat  = 10 * time.Minute
)

// Heartbeat returns the interval that a request asks for, or what is usual.
func Heartbeat(d *durationpb.Duration, usual time.Duration) (time.Duration, error) {
	if d == nil {
		return usual, nil
	}
	if heartbeat := d.AsDuration(); d.IsValid() && heartbeat >= shortestHeartbeat && heartbeat <= longestHeartbeat {
		return heartbeat, nil
	}
	return 0, fault.Invalid("heartbeat", "%v is not between %v and %v", d.AsDuration(), shortestHeartbeat, longestHeartbeat)
}
