package history

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Exact holds reads and watches against the versions of the keys, and answers every contradiction.
func Exact(h *History) []error {
	l, wrong := build(h)
	for _, o := range h.Operations {
		if o.Kind == Get && o.Fate == OK {
			if err := l.read(o); err != nil {
				wrong = append(wrong, err)
			}
		}
	}
	wrong = append(wrong, monotonic(h)...)
	for _, w := range h.Watches {
		wrong = append(wrong, l.watch(w)...)
	}
	return wrong
}

// read reports whether an answer is what was true as of its index.
func (l *ledger) read(o Operation) error {
	want := l.at(o.Key, o.Index)
	switch {
	case o.Found && o.Modify > o.Index:
		return fmt.Errorf("from the future: %s", o)
	case o.Found && o.Modify != want.modify:
		return fmt.Errorf("not what was true at index %d, which is %q of index %d: %s", o.Index, want.value, want.modify, o)
	case !o.Found && !want.deleted && !l.mayBeDeleted(o.Key, o.Return):
		return fmt.Errorf("absent, though at index %d it was %q of index %d: %s", o.Index, want.value, want.modify, o)
	}
	return nil
}

// monotonic says where a server's index went back: between two reads, the second called after the
// first returned.
func monotonic(h *History) []error {
	reads := map[process][]Operation{}
	for _, o := range h.Operations {
		// Reads of the other modes may be answered by another server.
		if o.Kind == Get && o.Mode == Stale && o.Fate == OK {
			p := process{o.Server, o.Life}
			reads[p] = append(reads[p], o)
		}
	}
	var wrong []error
	for _, calls := range reads {
		returns := slices.Clone(calls)
		slices.SortFunc(calls, func(a, b Operation) int { return cmp.Compare(a.Call, b.Call) })
		slices.SortFunc(returns, func(a, b Operation) int { return cmp.Compare(a.Return, b.Return) })
		var highest Operation
		for _, o := range calls {
			for len(returns) > 0 && returns[0].Return < o.Call {
				if returns[0].Index > highest.Index {
					highest = returns[0]
				}
				returns = returns[1:]
			}
			if o.Index < highest.Index {
				wrong = append(wrong, fmt.Errorf("the server's index went back: %s, then %s", highest, o))
			}
		}
	}
	return wrong
}

// change is one version of one key, as watches see it.
type change struct {
	key string
	version
}

// watch says what a stream missed, told twice or told out of order. A message may leave out
// versions that were replaced before it left, and nothing else; what a watch from 0 begins with is
// in the order of the keys.
func (l *ledger) watch(w Watch) []error {
	var wrong []error
	fail := func(at time.Duration, format string, args ...any) {
		wrong = append(wrong, fmt.Errorf("watch of %s from %d, at %v: %s", w.Server, w.From, at, fmt.Sprintf(format, args...)))
	}
	complete, first := w.From, true
	var told []Event
	for _, m := range w.Messages {
		told = append(told, m.Events...)
		if !m.Synced {
			continue
		}
		if m.Index < complete {
			fail(m.At, "its index went back from %d to %d", complete, m.Index)
		}
		if !first {
			if !slices.IsSortedFunc(told, func(a, b Event) int { return cmp.Compare(a.Modify, b.Modify) }) {
				fail(m.At, "not in the order of the indexes: %v", told)
			}
		}
		seen := map[string]map[uint64]bool{}
		for _, e := range told {
			if seen[e.Key] == nil {
				seen[e.Key] = map[uint64]bool{}
			}
			if seen[e.Key][e.Modify] {
				fail(m.At, "told twice of %s at %d", e.Key, e.Modify)
			}
			seen[e.Key][e.Modify] = true
			if e.Modify > m.Index || !first && e.Modify <= complete {
				fail(m.At, "%s at %d does not belong between %d and %d", e.Key, e.Modify, complete, m.Index)
			}
		}
		for _, c := range l.between(w.Prefix, complete, m.Index) {
			replaced := l.at(c.key, m.Index).modify != c.modify
			gone := first && w.From == 0 && c.deleted
			if !replaced && !gone && !seen[c.key][c.modify] {
				fail(m.At, "missed %s = %q at %d", c.key, c.value, c.modify)
			}
		}
		complete, first, told = m.Index, false, nil
	}
	return wrong
}

// between returns the versions, of keys with a prefix, with indexes above one and up to another.
func (l *ledger) between(prefix string, above, upTo uint64) []change {
	var out []change
	for key, versions := range l.versions {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		for _, v := range versions {
			if v.modify > above && v.modify <= upTo {
				out = append(out, change{key, v})
			}
		}
	}
	return out
}
