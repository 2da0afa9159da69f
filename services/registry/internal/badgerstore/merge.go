package badgerstore

import (
	"bytes"
	"iter"
)

// merge goes over the rows of segments in key order. What comes to a segment's keys after it began
// it leaves out. It is for one goroutine.
type merge struct {
	heads []head
	// key is the key it stands on, nil after the last one.
	key []byte
}

// head is where a merge stands in a segment.
type head struct {
	in    *segment
	order *order
	at    int
}

// key returns the key it stands on, nil after the last one.
func (h *head) key() []byte {
	if h.at == len(h.order.numbers) {
		return nil
	}
	return h.order.key(h.at)
}

// newMerge returns a merge that stands on the first row at or after a key.
func (l *segments) newMerge(from []byte) *merge {
	m := &merge{heads: make([]head, len(l.list))}
	for i, s := range l.list {
		m.heads[i] = head{in: s, order: s.inOrder()}
	}
	m.seek(from)
	return m
}

// seek moves to the first row at or after a key.
func (m *merge) seek(key []byte) {
	for i := range m.heads {
		m.heads[i].at = m.heads[i].order.seek(key)
	}
	m.settle()
}

// settle makes key the least one of the heads'.
func (m *merge) settle() {
	m.key = nil
	for i := range m.heads {
		if key := m.heads[i].key(); key != nil && (m.key == nil || bytes.Compare(key, m.key) < 0) {
			m.key = key
		}
	}
}

// next moves to the next row.
func (m *merge) next() {
	for i := range m.heads {
		if h := &m.heads[i]; bytes.Equal(h.key(), m.key) {
			h.at++
		}
	}
	m.settle()
}

// versions goes over the versions of the row it stands on, at or below an index, the newest first.
func (m *merge) versions(index uint64) iter.Seq[place] {
	return func(yield func(place) bool) {
		for i := len(m.heads) - 1; i >= 0; i-- {
			h := &m.heads[i]
			if !bytes.Equal(h.key(), m.key) {
				continue
			}
			for v := range h.in.from(h.in.at(h.order.numbers[h.at], index)) {
				if !yield(v) {
					return
				}
			}
		}
	}
}
