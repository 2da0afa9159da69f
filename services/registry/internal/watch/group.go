package watch

import (
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
	subs   []*Subscription
	// collectors counts the subscriptions that take rows; behind, those that have not taken the
	// newest.
	collectors, behind int
	// publication counts what was added, so that a subscription knows whether it has taken the
	// newest.
	publication uint64

	rows           map[string]*kept
	oldest, newest *kept
	bytes          int
	// floor is the index up to which rows may be missing.
	floor uint64
	// shared are the deltas handed out since the last change, by their number of rows.
	shared map[int]*Delta
	dirty  bool
}

// kept is the last version of a row.
type kept struct {
	row          *registryv1.Record
	older, newer *kept
}

func (k *kept) size() int { return len(k.row.GetKey()) + len(k.row.GetValue()) + rowOverhead }

func (g *group) join(s *Subscription) {
	m := membership{group: g, position: len(g.subs), publication: g.publication}
	g.subs = append(g.subs, s)
	if s.collects {
		g.collectors++
	}
	s.memberships = append(s.memberships, m)
}

// leave takes a subscription out; the last one in the list takes its place.
func (g *group) leave(s *Subscription, m *membership) {
	last := len(g.subs) - 1
	moved := g.subs[last]
	g.subs[m.position], g.subs[last] = moved, nil
	g.subs = g.subs[:last]
	moved.membership(g).position = m.position
	if s.collects {
		g.collectors--
		g.catchUp(m)
	}
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
	k := &kept{row: r, older: g.newest}
	if g.newest != nil {
		g.newest.newer = k
	} else {
		g.oldest = k
	}
	g.newest = k
	if g.rows == nil {
		g.rows = map[string]*kept{}
	}
	g.rows[r.GetKey()] = k
	g.bytes += k.size()
	g.hub.bytes += k.size()
	limits := g.hub.limits
	for g.oldest != nil && (len(g.rows) > limits.Rows || g.bytes > limits.Bytes || g.hub.bytes > limits.TotalBytes) {
		g.floor = max(g.floor, g.oldest.row.GetModifyIndex())
		g.remove(g.oldest)
	}
}

func (g *group) remove(k *kept) {
	if k.older != nil {
		k.older.newer = k.newer
	} else {
		g.oldest = k.newer
	}
	if k.newer != nil {
		k.newer.older = k.older
	} else {
		g.newest = k.older
	}
	delete(g.rows, k.row.GetKey())
	g.bytes -= k.size()
	g.hub.bytes -= k.size()
}

// forget drops all rows, up to and including an index.
func (g *group) forget(index uint64) {
	g.hub.bytes -= g.bytes
	g.rows, g.oldest, g.newest, g.bytes, g.shared = nil, nil, nil, 0, nil
	g.floor = max(g.floor, index)
}

// catchUp says that a member has taken the newest. When all have, the rows are of no more use.
func (g *group) catchUp(m *membership) {
	if m.publication == g.publication {
		return
	}
	m.publication = g.publication
	if g.behind--; g.behind == 0 && g.newest != nil {
		g.forget(g.newest.row.GetModifyIndex())
	}
}

// since returns what changed after an index, nil if nothing did; false when that is not known any
// more.
func (g *group) since(index uint64) (*Delta, bool) {
	if index < g.floor {
		return nil, false
	}
	n := 0
	first := g.newest
	for k := g.newest; k != nil && k.row.GetModifyIndex() > index; k = k.older {
		n, first = n+1, k
	}
	if n == 0 {
		return nil, true
	}
	if d := g.shared[n]; d != nil {
		return d, true
	}
	d := &Delta{Rows: make([]*registryv1.Record, 0, n), Index: g.hub.index.Load()}
	for k := first; k != nil; k = k.newer {
		d.Rows = append(d.Rows, k.row)
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
