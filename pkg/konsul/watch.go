package konsul

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/kvkey"
)

// WatchClient follows keys and services. A watch goes on where it was when its stream ends,
// wherever it finds a gateway that answers, until its context ends or what it is told returns an
// error.
type WatchClient struct {
	api registryv1.WatchServiceClient
	cfg Config
}

// WatchOptions says what to watch.
type WatchOptions struct {
	// Datacenter to ask; empty: the client's.
	Datacenter string
	// Index to go on from, that of the last change seen; 0: the present state comes first.
	Index uint64
	// Prefix watches all keys that begin with the key.
	Prefix bool
	// IncludeUnhealthy also answers instances that are not passing.
	IncludeUnhealthy bool
	// Tags keeps only instances that carry all of these.
	Tags []string
}

// KVChange is what changed since the change before.
type KVChange struct {
	// Entries were written, Deleted are the keys (in full: "local/x", "global/x") that were
	// deleted; in the order of their indexes, a key that was written more than once with its last
	// value only.
	Entries []*Entry
	Deleted []string
	// Reset says that Entries begins with the whole state: forget what came before. It is set at
	// first, unless the watch began at an index, and after changes were lost.
	Reset bool
	// Index is up to where everything has been told.
	Index uint64
}

// ServiceChange is a new answer about a service.
type ServiceChange struct {
	// Instances are all there are now.
	Instances []*Service
	// Index is where to go on from.
	Index uint64
}

const (
	watchFloor   = 100 * time.Millisecond
	watchCeiling = 5 * time.Second
)

// KV calls fn with every change of a key, or with Prefix of all keys below it. It returns fn's
// error, the context's, a refusal, or why it could not begin. opts may be nil.
func (c *WatchClient) KV(ctx context.Context, key string, opts *WatchOptions, fn func(*KVChange) error) error {
	if opts == nil {
		opts = &WatchOptions{}
	}
	request := &registryv1.WatchRequest{Table: registryv1.Table_TABLE_KV, Datacenter: c.cfg.datacenter(opts.Datacenter), Index: opts.Index}
	if opts.Prefix {
		request.KeyPrefix = key
	} else {
		request.Key = key
	}
	reset := opts.Index == 0
	return keep(ctx, func(ctx context.Context) (grpc.ServerStreamingClient[registryv1.WatchResponse], error) {
		return c.api.Watch(ctx, request)
	}, func(m *registryv1.WatchResponse) error {
		if m.GetResync() {
			request.Index, reset = 0, true
			return errAgain
		}
		// An index in the middle of the state at the beginning is none to go on from.
		if m.GetSynced() {
			request.Index = m.GetIndex()
		}
		if len(m.GetRecords()) == 0 && !reset {
			return nil
		}
		change := changeFrom(m)
		change.Reset, reset = reset, false
		return fn(change)
	}, func() {
		if request.GetIndex() == 0 {
			reset = true
		}
	})
}

// Service calls fn with the instances of a service, at once and whenever they change; the healthy
// ones unless opts says otherwise. It returns what KV does. opts may be nil.
func (c *WatchClient) Service(ctx context.Context, name string, opts *WatchOptions, fn func(*ServiceChange) error) error {
	if opts == nil {
		opts = &WatchOptions{}
	}
	request := &registryv1.WatchInstancesRequest{
		Service: name, Datacenter: c.cfg.datacenter(opts.Datacenter), Index: opts.Index, PassingOnly: !opts.IncludeUnhealthy, Tags: opts.Tags,
	}
	return keep(ctx, func(ctx context.Context) (grpc.ServerStreamingClient[registryv1.WatchInstancesResponse], error) {
		return c.api.WatchInstances(ctx, request)
	}, func(m *registryv1.WatchInstancesResponse) error {
		request.Index = m.GetIndex()
		if !m.GetChanged() {
			return nil
		}
		change := &ServiceChange{Index: m.GetIndex()}
		for _, instance := range m.GetInstances() {
			change.Instances = append(change.Instances, serviceFrom(instance))
		}
		return fn(change)
	}, func() {})
}

// errAgain ends a stream that has to be opened anew.
var errAgain = errors.New("open the stream anew")

// told marks what the receiver of a watch returned.
type told struct{ error }

// keep opens a stream again and again, and gives what it receives to take. broke is called before
// each new one.
func keep[M any](ctx context.Context, open func(context.Context) (grpc.ServerStreamingClient[M], error), take func(*M) error, broke func()) error {
	pause := backoff.New(watchFloor, watchCeiling)
	for began := false; ; broke() {
		received, err := receive(ctx, open, take)
		if received {
			began = true
			pause.Reset()
		}
		var mine told
		switch {
		case errors.Is(err, errAgain):
			continue
		case errors.As(err, &mine):
			return mine.error
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, io.EOF):
		case !began || fault.CodeOf(err) != fault.Unavailable:
			return err
		}
		if pause.Wait(ctx) != nil {
			return context.Cause(ctx)
		}
	}
}

// receive reads one stream to its end, and says whether anything came.
func receive[M any](ctx context.Context, open func(context.Context) (grpc.ServerStreamingClient[M], error), take func(*M) error) (bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := open(ctx)
	if err != nil {
		return false, err
	}
	for received := false; ; received = true {
		m, err := stream.Recv()
		if err != nil {
			return received, err
		}
		if err := take(m); err != nil {
			if errors.Is(err, errAgain) {
				return true, err
			}
			return true, told{err}
		}
	}
}

func changeFrom(m *registryv1.WatchResponse) *KVChange {
	change := &KVChange{Index: m.GetIndex()}
	for _, r := range m.GetRecords() {
		if r.GetDeleted() {
			change.Deleted = append(change.Deleted, r.GetKey())
			continue
		}
		e := &registryv1.Entry{
			Key: r.GetKey(), Value: r.GetValue(), Flags: r.GetFlags(), CreateIndex: r.GetCreateIndex(), ModifyIndex: r.GetModifyIndex(),
			Version: r.GetVersion(), OriginDatacenter: r.GetOriginDatacenter(), ModifiedAt: r.GetOriginTime(),
		}
		e.Key, e.Scope = kvkey.Split(r.GetKey())
		change.Entries = append(change.Entries, entryFrom(e, m.GetMeta().GetDatacenter(), m.GetIndex()))
	}
	return change
}
