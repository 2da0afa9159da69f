package watch

import (
	"container/list"
	"slices"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// rowOverhead is about what a kept row costs beside its key and value.
const rowOverhead = 256

// group is all subscriptions with the same filter. What changed is kept once for all of them: the
// last version of each row, in the order of their modify indexes, so that what is new to a
// subscription is what follows the index it has taken. Everything here is guarded by hub.mu.
type group struct {
	hub    *Hub
	filter Filter
	// subs maps subscriptions to the last publication that each has taken.
	subs map[*Subscription]uint64
	// collectors counts the subscriptions that take rows; behind, those that have not taken the
	// newest.
	collectors, behind int
	// publication counts what was added, so that a subscription knows whether it has taken the
	// newest.
	publication uint64

	// rows has the elements of order, by key; order has the rows, the oldest first.
	rows  map[string]*list.Element
	order list.List
	bytes int
	// floor is the index up to which rows may be missing.
	floor uint64
	// shared are the deltas handed out since the last change, by their number of rows.
	shared map[int]*Delta
	dirty  bool
}

func newGroup(h *Hub, f Filter) *group {
	return &group{hub: h, filter: f, subs: map[*Subscription]uint64{}, rows: map[string]*list.Element{}}
}

func rowOf(e *list.Element) *registryv1.Record { return e.Value.(*registryv1.Record) }

func (g *group) join(s *Subscription) {
	if _, in := g.subs[s]; in {
		return
	}
	g.subs[s] = g.publication
	s.groups = append(s.groups, g)
	if s.collects {
		g.collectors++
	}
}

func (g *group) leave(s *Subscription) {
	if s.collects {
		g.collectors--
		g.catchUp(s)
	}
	delete(g.subs, s)
}

// add takes in a new version of a row.
func (g *group) add(r *registryv1.Record) {
	if g.collectors == 0 {
		return
	}
	g.publication++
	g.behind = g.collectors
	g.shared = nil
	if old := g.rows[r.GetKey()]; old != nil {
		g.remove(old)
	}
	g.rows[r.GetKey()] = g.order.PushBack(r)
	g.weigh(r, 1)
	limits := g.hub.limits
	for len(g.rows) > limits.Rows || g.bytes > limits.Bytes || len(g.rows) > 0 && g.hub.bytes > limits.TotalBytes {
		oldest := g.order.Front()
		g.floor = max(g.floor, rowOf(oldest).GetModifyIndex())
		g.remove(oldest)
	}
}

func (g *group) remove(e *list.Element) {
	row := rowOf(e)
	g.order.Remove(e)
	delete(g.rows, row.GetKey())
	g.weigh(row, -1)
}

// weigh counts what a row costs; sign is 1 or -1.
func (g *group) weigh(r *registryv1.Record, sign int) {
	size := sign * (len(r.GetKey()) + len(r.GetValue()) + rowOverhead)
	g.bytes += size
	g.hub.bytes += size
}

// forget drops all rows, up to and including an index.
func (g *group) forget(index uint64) {
	g.hub.bytes -= g.bytes
	g.bytes, g.shared, g.rows = 0, nil, map[string]*list.Element{}
	g.order.Init()
	g.floor = max(g.floor, index)
}

// catchUp says that a member has taken the newest. When all have, the rows are of no more use.
func (g *group) catchUp(s *Subscription) {
	if g.subs[s] == g.publication {
		return
	}
	g.subs[s] = g.publication
	if g.behind--; g.behind == 0 && len(g.rows) > 0 {
		g.forget(rowOf(g.order.Back()).GetModifyIndex())
	}
}

// since returns what changed after an index, nil if nothing did; false when that is not known any
// more.
func (g *group) since(index uint64) (*Delta, bool) {
	if index < g.floor {
		return nil, false
	}
	n, first := 0, (*list.Element)(nil)
	for e := g.order.Back(); e != nil && rowOf(e).GetModifyIndex() > index; e = e.Prev() {
		n, first = n+1, e
	}
	if n == 0 {
		return nil, true
	}
	if d := g.shared[n]; d != nil {
		return d, true
	}
	d := &Delta{Rows: make([]*registryv1.Record, 0, n), Index: g.hub.index.Load()}
	for e := first; e != nil; e = e.Next() {
		d.Rows = append(d.Rows, rowOf(e))
	}
	if g.shared == nil {
		g.shared = map[int]*Delta{}
	}
	g.shared[n] = d
	return d, true
}

// merge returns several deltas as one, each row once.
func merge(deltas []*Delta, index uint64) *Delta {
	switch len(deltas) {
	case 0:
		return &Delta{Index: index}
	case 1:
		return deltas[0]
	}
	out := &Delta{Index: index}
	for _, d := range deltas {
		out.Rows = append(out.Rows, d.Rows...)
	}
	slices.SortFunc(out.Rows, compareRows)
	out.Rows = slices.Compact(out.Rows) // What two filters named is the same record.
	return out
}
