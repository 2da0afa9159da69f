package watching

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/changes"
	"konsul.dev/services/registry/internal/watch"
)

// sharedFor is how long the time in a shared message is near enough.
const sharedFor = 50 * time.Millisecond

// watcher streams rows from an index on: first what changed since then, later what commits.
type watcher struct {
	*Service
	stream  grpc.ServerStreamingServer[registryv1.WatchResponse]
	filters []watch.Filter
	// global says that they name global rows only.
	global bool
	// rights leave out rows the caller may not read; nil: all are sent.
	rights *acl.Authorizer
	// since is where the watch began, sent is where the caller stands, from which it may resume.
	since, sent uint64
	// synced says that the rows up to sent are all sent; it stays true once it is.
	synced bool
	// filtered says that rows were left out.
	filtered bool
}

func (w *watcher) run(heartbeat time.Duration) error {
	w.Source.Metrics.Streams.Inc()
	defer w.Source.Metrics.Streams.Dec()
	sub := w.Source.Hub.Subscribe(w.filters...)
	defer sub.Close()
	w.sent = w.since
	if w.Source.Forgotten(w.since) {
		return w.resync()
	}
	rows, index, err := w.Source.Read(w.filters, w.since)
	if err != nil {
		return err
	}
	if err := w.emit(w.readable(rows), index); err != nil {
		return err
	}
	sub.Skip(w.sent)
	patience := time.Now().Add(aheadPatience)
	return w.Source.Follow(w.stream.Context(), sub, heartbeat, func(d *watch.Delta) (bool, error) {
		same, err := w.stillGood()
		if err != nil {
			return false, err
		}
		// An index that is not reached for too long is none of this datacenter's.
		astray := w.since > w.Source.Hub.Index() && time.Now().After(patience)
		if d == nil || !same || astray {
			return false, w.resync()
		}
		return true, w.pass(d)
	})
}

// resync tells the caller to begin again.
func (w *watcher) resync() error {
	w.Source.Metrics.Resyncs.Inc()
	resp := w.response(nil)
	resp.Resync = true
	return w.stream.Send(resp)
}

func (w *watcher) response(rows []*registryv1.Record) *registryv1.WatchResponse {
	meta := w.Meta(w.global, w.sent)
	meta.ResultsFiltered = w.filtered
	return &registryv1.WatchResponse{Records: rows, Index: w.sent, Time: w.StateTime(), Synced: w.synced, Meta: meta}
}

// emit sends rows in pieces; only the last one says that everything up to index is sent.
func (w *watcher) emit(rows []*registryv1.Record, index uint64) error {
	return changes.InPieces(rows, func(rows []*registryv1.Record, last bool) error {
		if last {
			w.synced, w.sent = true, max(w.sent, index)
		}
		return w.stream.Send(w.response(rows))
	})
}

// pass sends a delta, in one message that all who get it share if it is the same for them.
func (w *watcher) pass(d *watch.Delta) error {
	rows := w.readable(d.Rows)
	if len(rows) < len(d.Rows) || len(rows) == 0 || !changes.Fits(rows) || w.filtered {
		return w.emit(rows, d.Index)
	}
	w.sent = max(w.sent, d.Index)
	return w.stream.Send(watch.Share(d, w.Clock.Now(), sharedFor, func() *registryv1.WatchResponse {
		return encoded(w.response(rows))
	}))
}

// encoded returns a message that is encoded already, for those who only pass it on to a connection:
// its fields are kept where a message keeps fields that it does not know, and are sent as they
// stand.
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

// readable returns the rows that the caller may read.
func (w *watcher) readable(rows []*registryv1.Record) []*registryv1.Record {
	if w.rights == nil || w.rights.Management() {
		return rows
	}
	out := make([]*registryv1.Record, 0, len(rows))
	for _, row := range rows {
		if need, asked := rowNeed(w.Catalog, row); !asked || w.rights.Allows(need) {
			out = append(out, row)
		}
	}
	w.filtered = w.filtered || len(out) < len(rows)
	return out
}

// stillGood returns a fault when the caller's token is gone or may read nothing here any more, and
// false when its rights changed: rows may be missing then that it may read now.
func (w *watcher) stillGood() (bool, error) {
	if w.rights == nil {
		return true, nil
	}
	now, err := w.Tokens.Refresh(w.rights)
	if err == nil && now != w.rights {
		err = seesSome(w.Catalog, now, w.filters)
	}
	return now == w.rights, err
}
