package watch

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Filter names rows to watch.
type Filter struct {
	Table registryv1.Table
	// Prefix of the keys, or with Exact the key itself.
	Prefix string
	Exact  bool
}

// Match reports whether the filter names a row.
func (f Filter) Match(table registryv1.Table, key string) bool {
	if f.Table != table {
		return false
	}
	if f.Exact {
		return key == f.Prefix
	}
	return strings.HasPrefix(key, f.Prefix)
}

// Limits bound what is kept for subscriptions that have not taken it yet.
type Limits struct {
	// Rows of one filter; a row that is written again counts once.
	Rows int
	// Bytes of one filter's rows.
	Bytes int
	// TotalBytes of all filters' rows.
	TotalBytes int
}

// DefaultLimits suit a registry.
func DefaultLimits() Limits { return Limits{Rows: 8192, Bytes: 16 << 20, TotalBytes: 128 << 20} }

// Hub hands committed changes to subscriptions.
type Hub struct {
	limits Limits
	index  atomic.Uint64

	mu     sync.Mutex
	tables map[registryv1.Table]*table
	// bytes is what all groups keep.
	bytes int
	// resets counts how often the state was replaced as a whole.
	resets uint64
	// reached is closed and replaced when the index moves; nil while nobody waits for it.
	reached chan struct{}
	// dirty are the groups whose subscriptions have to be woken by the waker, which runs while
	// there are any.
	dirty  []*group
	waking bool
}

// NewHub returns a hub that stands at an index.
func NewHub(index uint64, limits Limits) *Hub {
	h := &Hub{limits: limits, tables: map[registryv1.Table]*table{}}
	h.index.Store(index)
	return h
}

// table finds the groups that match a key without asking each of them.
type table struct {
	exact  map[string]*group
	prefix map[string]*group
	// lengths counts the prefixes by length; sorted is its keys.
	lengths map[int]int
	sorted  []int
}

// Publish hands out the rows a batch wrote, in commit order, up to and including index. The rows
// are shared from here on: nobody may change them.
func (h *Hub) Publish(index uint64, rows []*registryv1.Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.index.Store(max(h.index.Load(), index))
	h.announce()
	for _, r := range rows {
		t := h.tables[r.GetTable()]
		if t == nil {
			continue
		}
		h.deliver(t.exact[r.GetKey()], r)
		for _, n := range t.sorted {
			if n > len(r.GetKey()) {
				break
			}
			h.deliver(t.prefix[r.GetKey()[:n]], r)
		}
	}
	h.startWaking()
}

// deliver runs under mu.
func (h *Hub) deliver(g *group, r *registryv1.Record) {
	if g == nil {
		return
	}
	g.add(r)
	if !g.dirty {
		g.dirty = true
		h.dirty = append(h.dirty, g)
	}
}

// Reset says that the state was replaced as a whole: every subscription has fallen behind.
func (h *Hub) Reset(index uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.index.Store(index)
	h.announce()
	h.resets++
	for _, t := range h.tables {
		for _, groups := range []map[string]*group{t.exact, t.prefix} {
			for _, g := range groups {
				g.forget(index)
				if !g.dirty {
					g.dirty = true
					h.dirty = append(h.dirty, g)
				}
			}
		}
	}
	h.startWaking()
}

// Index is the last index published.
func (h *Hub) Index() uint64 { return h.index.Load() }

// Await returns nil when everything up to an index has been published, or the cause of ctx's end.
func (h *Hub) Await(ctx context.Context, index uint64) error {
	for {
		h.mu.Lock()
		if h.index.Load() >= index {
			h.mu.Unlock()
			return nil
		}
		if h.reached == nil {
			h.reached = make(chan struct{})
		}
		reached := h.reached
		h.mu.Unlock()
		select {
		case <-reached:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// announce runs under mu.
func (h *Hub) announce() {
	if h.reached != nil {
		close(h.reached)
		h.reached = nil
	}
}

// startWaking runs under mu. Waking takes time for each subscription, and the caller is the one who
// applies the log: it does not wait for that.
func (h *Hub) startWaking() {
	if len(h.dirty) > 0 && !h.waking {
		h.waking = true
		go h.wake()
	}
}

// wake wakes the subscriptions of dirty groups until there are none.
func (h *Hub) wake() {
	var subs []*Subscription
	for {
		h.mu.Lock()
		subs = subs[:0]
		for _, g := range h.dirty {
			g.dirty = false
			subs = slices.AppendSeq(subs, maps.Keys(g.subs))
		}
		h.dirty = h.dirty[:0]
		h.waking = len(subs) > 0
		waking := h.waking
		h.mu.Unlock()
		if !waking {
			return
		}
		for _, s := range subs {
			s.signal()
		}
		clear(subs)
	}
}

// Subscribe collects the rows that change from now on. Close it.
func (h *Hub) Subscribe(filters ...Filter) *Subscription { return h.subscribe(true, filters) }

// Listen is only woken by changes of the rows: whoever reads the state anew needs no more. Close
// it.
func (h *Hub) Listen(filters ...Filter) *Subscription { return h.subscribe(false, filters) }

func (h *Hub) subscribe(collects bool, filters []Filter) *Subscription {
	s := &Subscription{hub: h, collects: collects, wake: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	s.taken, s.resets = h.index.Load(), h.resets
	for _, f := range filters {
		t := h.tables[f.Table]
		if t == nil {
			t = &table{exact: map[string]*group{}, prefix: map[string]*group{}, lengths: map[int]int{}}
			h.tables[f.Table] = t
		}
		t.group(h, f).join(s)
	}
	return s
}

// group returns the group of a filter, made if need be.
func (t *table) group(h *Hub, f Filter) *group {
	groups := t.groups(f)
	g := groups[f.Prefix]
	if g == nil {
		g = newGroup(h, f)
		groups[f.Prefix] = g
		if !f.Exact {
			t.count(len(f.Prefix), 1)
		}
	}
	return g
}

func (t *table) groups(f Filter) map[string]*group {
	if f.Exact {
		return t.exact
	}
	return t.prefix
}

// drop forgets a group that nobody is in.
func (t *table) drop(f Filter) {
	delete(t.groups(f), f.Prefix)
	if !f.Exact {
		t.count(len(f.Prefix), -1)
	}
}

func (t *table) count(length, delta int) {
	t.lengths[length] += delta
	if t.lengths[length] == 0 {
		delete(t.lengths, length)
	}
	t.sorted = slices.Sorted(maps.Keys(t.lengths))
}
