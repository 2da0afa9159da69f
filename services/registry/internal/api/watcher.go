package api

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"time"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/watch"
)

// message is what a watcher sends.
type message struct {
	rows []*registryv1.Record
	// index is where the reader stands once the message is applied, from which it may resume.
	index uint64
	// upTo is where it stands once the last piece of what the message is part of is applied.
	upTo   uint64
	resync bool
	// synced says that the rows up to index are all sent; it stays true once it is.
	synced bool
	// complete says so of this message.
	complete bool
	// full says that the rows are everything there is, not a delta.
	full bool
	// filtered says that rows were left out that the caller may not read.
	filtered bool
	// shared is set when the message is the same for everybody who gets this delta.
	shared *watch.Delta
}

// watcher streams rows from an index on: first what changed since then, later what commits.
type watcher struct {
	*Core
	since     uint64
	heartbeat time.Duration
	filters   []watch.Filter
	send      func(message) error
	// rights leave out rows the caller may not read; nil: all are sent.
	rights *acl.Authorizer
	// fullSync answers an index that is too old with everything instead of a resync.
	fullSync bool
	synced   bool
	sent     uint64
	// filtered says that rows were left out.
	filtered bool
}

func (w *watcher) run(ctx context.Context) error {
	w.Metrics.watchers.Inc()
	defer w.Metrics.watchers.Dec()
	sub := w.Hub.Subscribe(w.filters...)
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
	if err := w.emit(w.readable(rows), max(index, w.since), full); err != nil {
		return err
	}
	sub.Skip(w.sent)
	return w.follow(ctx, sub)
}

// state reads what to send first: everything, or what changed after since with its tombstones.
func (w *watcher) state(full bool) ([]*registryv1.Record, uint64, error) {
	var rows []*registryv1.Record
	var index uint64
	err := w.Store.View(func(r record.Reader) error {
		index = r.Index()
		for _, f := range w.filters {
			if err := w.read(r, f, full, func(row *registryv1.Record) bool {
				rows = append(rows, row)
				return true
			}); err != nil {
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

// read calls fn for the rows of one filter that state answers.
func (w *watcher) read(r record.Reader, f watch.Filter, full bool, fn func(*registryv1.Record) bool) error {
	if !f.Exact {
		return r.Scan(f.Table, record.ScanOptions{Prefix: f.Prefix, Since: w.since, Deleted: !full}, fn)
	}
	row, err := r.Get(f.Table, f.Prefix)
	if err == nil && row.GetModifyIndex() > w.since && (record.Live(row) || !full) {
		fn(row)
	}
	return err
}

// emit sends rows in pieces; only the last one says that everything up to index is sent.
func (w *watcher) emit(rows []*registryv1.Record, index uint64, full bool) error {
	rows = w.ordered(rows)
	upTo := max(w.sent, index)
	for {
		n := chunk(rows)
		m := message{rows: rows[:n], index: w.sent, upTo: upTo, full: full, synced: w.synced, filtered: w.filtered}
		rows = rows[n:]
		if len(rows) == 0 {
			w.synced, w.sent = true, upTo
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

// ordered puts the rows that a copy gets in the order in which it is to apply them.
func (w *watcher) ordered(rows []*registryv1.Record) []*registryv1.Record {
	if !w.fullSync {
		return rows
	}
	order := func(r *registryv1.Record) record.Order { return record.Tables().Of(r.GetTable()).Order }
	sorted := slices.Clone(rows) // Others may read them too.
	slices.SortStableFunc(sorted, func(a, b *registryv1.Record) int { return cmp.Compare(order(a), order(b)) })
	return sorted
}

// pass sends a delta, in one message that all who get it share if it is the same for them.
func (w *watcher) pass(d *watch.Delta) error {
	rows := w.readable(d.Rows)
	if w.fullSync || len(rows) < len(d.Rows) || len(rows) == 0 || chunk(rows) < len(rows) || w.filtered {
		return w.emit(rows, d.Index, false)
	}
	w.sent = max(w.sent, d.Index)
	return w.send(message{rows: rows, index: w.sent, synced: true, complete: true, shared: d})
}

// readable answers the rows that the caller may read.
func (w *watcher) readable(rows []*registryv1.Record) []*registryv1.Record {
	if w.rights == nil || w.rights.Management() {
		return rows
	}
	out := make([]*registryv1.Record, 0, len(rows))
	for _, row := range rows {
		if need, asked := w.rowNeed(row); !asked || w.rights.Allows(need) {
			out = append(out, row)
		}
	}
	w.filtered = w.filtered || len(out) < len(rows)
	return out
}

// stillGood answers a fault when the caller's token is gone or may read nothing here any more, and false when its rights changed: rows may
// be missing then that it may read now.
func (w *watcher) stillGood() (bool, error) {
	if w.rights == nil {
		return true, nil
	}
	now, err := w.Tokens.Refresh(w.rights)
	if err == nil && now != w.rights {
		err = w.seesSome(now, w.filters)
	}
	return now == w.rights, err
}

// A message of a stream ends after this many rows or bytes.
const (
	chunkRows  = 1000
	chunkBytes = 1 << 20
)

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
	timer := time.NewTimer(jittered(w.heartbeat))
	defer timer.Stop()
	reached := time.Now().Add(aheadPatience)
	for {
		select {
		case <-sub.Wake():
		case <-timer.C:
		case <-w.Draining:
			return w.draining()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		same, err := w.stillGood()
		if err != nil {
			return err
		}
		delta, known := sub.Take()
		if !known || !same || w.astray(reached) {
			w.Metrics.resyncs.Inc()
			return w.send(message{index: w.sent, resync: true, synced: w.synced})
		}
		if err := w.pass(delta); err != nil {
			return err
		}
		timer.Reset(jittered(w.heartbeat))
	}
}

// aheadPatience is how long a watcher may be ahead of this server.
const aheadPatience = 10 * time.Second

// astray says that the index the watcher resumed from is none of this datacenter: it has not been reached for too long.
func (w *watcher) astray(since time.Time) bool {
	return w.since > w.Hub.Index() && time.Now().After(since)
}

// jittered answers somewhat less than an interval, so that watchers that came together do not keep step.
func jittered(interval time.Duration) time.Duration { return interval - rand.N(interval/8+1) }
