package audit

import "sync"

const (
	// mostKinds bounds the kinds of refusals that are told apart in an interval; what comes beyond
	// them is of one kind.
	mostKinds = 4096
	// ofOthers is the accessor in the line about those.
	ofOthers = "(others)"
)

// kind is what makes one refusal like another.
type kind struct{ accessor, peer, method, outcome string }

// sample writes the first refusals of a kind in an interval and counts the rest. Safe for
// concurrent use.
type sample struct {
	// first is how many of a kind are written; 0: all.
	first int

	mu   sync.Mutex
	seen map[kind]int
}

// admit reports whether a refusal is one of the first of its kind.
func (s *sample) admit(e Entry) bool {
	if s.first == 0 {
		return true
	}
	k := kind{e.Accessor, e.Peer, e.Method, e.Outcome}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.seen[k]; !known && len(s.seen) >= mostKinds {
		k = kind{accessor: ofOthers}
	}
	s.seen[k]++
	return s.seen[k] <= s.first
}

// next begins an interval and returns how many refusals of each kind were left out in the one
// before.
func (s *sample) next() map[kind]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	omitted := map[kind]int{}
	for k, n := range s.seen {
		if n > s.first {
			omitted[k] = n - s.first
		}
	}
	s.seen = map[kind]int{}
	return omitted
}
