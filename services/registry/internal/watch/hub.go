package watch

import (
	"slices"
	"strings"
	"sync"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Filter names rows to watch.
type Filter struct {
	Table registryv1.Table
	// Prefix of the keys, or with Exact the key itself.
	Prefix string
	Exact  bool
}

// Match says whether the filter names a row.
func (f Filter) Match(table registryv1.Table, key string) bool {
	if f.Table != table {
		return false
	}
	if f.Exact {
		return key == f.Prefix
	}
	return strings.HasPrefix(key, f.Prefix)
}

// Hub hands committed changes to subscriptions.
type Hub struct {
	mu     sync.Mutex
	index  uint64
	tables map[registryv1.Table]*table
}

// NewHub answers a hub that stands at an index.
func NewHub(index uint64) *Hub {
	return &Hub{index: index, tables: map[registryv1.Table]*table{}}
}

// table finds the subscriptions that match a key without asking each of them.
type table struct {
	exact  map[string]subscribers
	prefix map[string]subscribers
	// lengths counts the prefixes by length; sorted is its keys.
	lengths map[int]int
	sorted  []int
}

type subscribers map[*Subscription]struct{}

// Publish hands out the rows a batch wrote, in commit order, up to and including index. The rows
// are shared from here on: nobody may change them.
func (h *Hub) Publish(index uint64, rows []*registryv1.Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.index = max(h.index, index)
	for _, r := range rows {
		t := h.tables[r.GetTable()]
		if t == nil {
			continue
		}
		t.exact[r.GetKey()].deliver(r)
		for _, n := range t.sorted {
			if n > len(r.GetKey()) {
				break
			}
			t.prefix[r.GetKey()[:n]].deliver(r)
		}
	}
}

// Reset says that the state was replaced as a whole: every subscription has fallen behind.
func (h *Hub) Reset(index uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.index = index
	for _, t := range h.tables {
		for _, group := range []map[string]subscribers{t.exact, t.prefix} {
			for _, subs := range group {
				for s := range subs {
					s.lag()
				}
			}
		}
	}
}

// Index is the last index published.
func (h *Hub) Index() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.index
}

// Subscribe watches rows. With a buffer of 0 the subscription is only woken and collects nothing;
// otherwise it falls behind when more than buffer rows wait to be taken. Close it.
func (h *Hub) Subscribe(buffer int, filters ...Filter) *Subscription {
	s := &Subscription{hub: h, filters: filters, buffer: buffer, wake: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range filters {
		t := h.tables[f.Table]
		if t == nil {
			t = &table{exact: map[string]subscribers{}, prefix: map[string]subscribers{}, lengths: map[int]int{}}
			h.tables[f.Table] = t
		}
		t.add(f, s)
	}
	return s
}

func (t *table) add(f Filter, s *Subscription) {
	group := t.group(f)
	if group[f.Prefix] == nil {
		group[f.Prefix] = subscribers{}
		if !f.Exact {
			t.count(len(f.Prefix), 1)
		}
	}
	group[f.Prefix][s] = struct{}{}
}

func (t *table) remove(f Filter, s *Subscription) {
	group := t.group(f)
	if _, ok := group[f.Prefix][s]; !ok {
		return
	}
	delete(group[f.Prefix], s)
	if len(group[f.Prefix]) == 0 {
		delete(group, f.Prefix)
		if !f.Exact {
			t.count(len(f.Prefix), -1)
		}
	}
}

func (t *table) group(f Filter) map[string]subscribers {
	if f.Exact {
		return t.exact
	}
	return t.prefix
}

func (t *table) count(length, delta int) {
	t.lengths[length] += delta
	if t.lengths[length] == 0 {
		delete(t.lengths, length)
	}
	t.sorted = t.sorted[:0]
	for n := range t.lengths {
		t.sorted = append(t.sorted, n)
	}
	slices.Sort(t.sorted)
}

func (subs subscribers) deliver(r *registryv1.Record) {
	for s := range subs {
		s.deliver(r)
	}
}
