package history

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// version is one state of a key: who wrote it, and when anybody knew.
type version struct {
	modify  uint64
	value   string
	deleted bool
	// known says that a writer was told of it; others were only seen.
	known bool
	// call is when its write was called; seen when it was first acknowledged or observed.
	call, seen time.Duration
}

// ledger is what is known of every key: its versions in the order of their indexes, and the writes
// that may have made more of them.
type ledger struct {
	versions map[string][]version
	byValue  map[string]version
	writes   map[string]Operation
	refused  map[string]Operation
	// lost deletions may have happened at any index.
	lost map[string][]Operation
}

// build collects the versions of a history and returns what contradicts itself already.
func build(h *History) (*ledger, []error) {
	l := &ledger{versions: map[string][]version{}, byValue: map[string]version{}, writes: map[string]Operation{}, refused: map[string]Operation{}, lost: map[string][]Operation{}}
	var wrong []error
	for _, o := range h.Operations {
		switch {
		case o.Kind == Set && (o.Fate == Refused || o.Fate == Conflict):
			l.refused[id(o.Key, o.Value)] = o
		case o.Kind == Set:
			l.writes[id(o.Key, o.Value)] = o
		case o.Kind == Delete && o.Fate == Unknown:
			l.lost[o.Key] = append(l.lost[o.Key], o)
		}
	}
	add := func(key string, v version, who string) {
		if err := l.add(key, v); err != nil {
			wrong = append(wrong, fmt.Errorf("%w: %s", err, who))
		}
	}
	for _, o := range h.Operations {
		switch {
		case o.Kind == Set && o.Fate == OK && o.Modify > 0:
			add(o.Key, version{modify: o.Modify, value: o.Value, known: true, call: o.Call, seen: o.Return}, o.String())
		case o.Kind == Delete && o.Fate == OK && o.Modify > 0:
			add(o.Key, version{modify: o.Modify, deleted: true, known: true, call: o.Call, seen: o.Return}, o.String())
		case o.Kind == Get && o.Fate == OK && o.Found:
			add(o.Key, version{modify: o.Modify, value: o.Value, seen: o.Return}, o.String())
		}
	}
	for _, w := range h.Watches {
		for _, m := range w.Messages {
			for _, e := range m.Events {
				add(e.Key, version{modify: e.Modify, value: e.Value, deleted: e.Deleted, seen: m.At}, fmt.Sprintf("watch of %s at %v", w.Server, m.At))
			}
		}
	}
	for _, versions := range l.versions {
		slices.SortFunc(versions, func(a, b version) int { return cmp.Compare(a.modify, b.modify) })
	}
	return l, wrong
}

func id(key, value string) string { return key + "=" + value }

// add takes a version in, or checks it against the one that is there.
func (l *ledger) add(key string, v version) error {
	if !v.deleted && !v.known {
		if o, ok := l.refused[id(key, v.value)]; ok {
			return fmt.Errorf("%s: a write that was refused is seen: %s", key, o)
		}
		o, ok := l.writes[id(key, v.value)]
		if !ok {
			return fmt.Errorf("%s: value %q was never written", key, v.value)
		}
		if v.call = o.Call; v.seen < o.Call {
			return fmt.Errorf("%s: seen before it was written: %s", key, o)
		}
	}
	if !v.deleted {
		if was, ok := l.byValue[id(key, v.value)]; ok && was.modify != v.modify {
			return fmt.Errorf("%s: one write took effect twice, at index %d and at %d", key, was.modify, v.modify)
		}
		l.byValue[id(key, v.value)] = v
	}
	for i, was := range l.versions[key] {
		if was.modify != v.modify {
			continue
		}
		if was.value != v.value || was.deleted != v.deleted {
			return fmt.Errorf("%s: index %d has two contents, %q and %q", key, v.modify, was.value, v.value)
		}
		was.known, was.seen = was.known || v.known, min(was.seen, v.seen)
		l.versions[key][i] = was
		return nil
	}
	l.versions[key] = append(l.versions[key], v)
	return nil
}

// at returns the version in effect as of an index, the zero version if there is none.
func (l *ledger) at(key string, index uint64) version {
	versions := l.versions[key]
	n, _ := slices.BinarySearchFunc(versions, index+1, func(v version, i uint64) int { return cmp.Compare(v.modify, i) })
	if n == 0 {
		return version{deleted: true}
	}
	return versions[n-1]
}

// mayBeDeleted reports whether a deletion of unknown fate may have hidden the key from a read that
// ended then.
func (l *ledger) mayBeDeleted(key string, end time.Duration) bool {
	return slices.ContainsFunc(l.lost[key], func(o Operation) bool { return o.Call <= end })
}
