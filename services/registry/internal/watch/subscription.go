package watch

import registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

// Subscription is somebody's interest in some rows. It is for one goroutine.
type Subscription struct {
	hub     *Hub
	filters []Filter
	buffer  int
	wake    chan struct{}

	// Guarded by hub.mu.
	rows   []*registryv1.Record
	lagged bool
}

// Wake receives after something happened since the last Take.
func (s *Subscription) Wake() <-chan struct{} { return s.wake }

// Take answers the rows that changed since the last Take, in commit order, and the index up to which
// that is everything. lagged means that rows were lost: read the state anew and subscribe again.
func (s *Subscription) Take() (rows []*registryv1.Record, index uint64, lagged bool) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	rows, s.rows = s.rows, nil
	return rows, s.hub.index, s.lagged
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	for _, f := range s.filters {
		t := s.hub.tables[f.Table]
		if t == nil {
			continue
		}
		t.remove(f, s)
		if len(t.exact) == 0 && len(t.prefix) == 0 {
			delete(s.hub.tables, f.Table)
		}
	}
	s.rows = nil
}

// deliver runs under hub.mu.
func (s *Subscription) deliver(r *registryv1.Record) {
	switch {
	case s.lagged:
		return
	case s.buffer == 0:
	case len(s.rows) >= s.buffer:
		s.lag()
		return
	case len(s.rows) > 0 && s.rows[len(s.rows)-1] == r: // Two filters of one subscription match.
		return
	default:
		s.rows = append(s.rows, r)
	}
	s.signal()
}

// lag runs under hub.mu.
func (s *Subscription) lag() {
	s.lagged, s.rows = true, nil
	s.signal()
}

func (s *Subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
