package pull

import (
	"time"

	"konsul.dev/services/replicator/internal/cursor"
	"konsul.dev/services/replicator/internal/lag"
)

// Status says how copying from one source is doing.
type Status struct {
	Source string
	// ReplicatedIndex is the source's index up to which everything is here.
	ReplicatedIndex uint64
	// SourceIndex is the source's index when it was last heard.
	SourceIndex uint64
	// Lag is the time since this datacenter was last known to have everything.
	Lag       time.Duration
	Connected bool
	// Err says why not, when it is not connected; empty otherwise.
	Err string
	// FullSync is when everything was last copied over copies that were here; zero: never.
	FullSync time.Time
}

// state is what a puller knows of its source. The puller's mutex guards it.
type state struct {
	source      string
	replicated  uint64
	sourceIndex uint64
	tracker     lag.Tracker
	resumed     bool // the stored cursor has been read
	connected   bool
	err         string
	fullSync    time.Time
}

func (s *state) status(now time.Time) Status {
	return Status{
		Source: s.source, ReplicatedIndex: s.replicated, SourceIndex: s.sourceIndex,
		Lag: s.tracker.Lag(now), Connected: s.connected, Err: s.err, FullSync: s.fullSync,
	}
}

// Status returns for every source: one in a secondary, none in the primary.
func (p *Puller) Status() []Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == nil {
		return nil
	}
	return []Status{p.state.status(p.params.Clock.Now())}
}

// follow makes source the one that status tells of; empty: none. What is known of it is kept when
// it was that already.
func (p *Puller) follow(source string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case source == "":
		p.state = nil
	case p.state == nil || p.state.source != source:
		p.state = &state{source: source, tracker: lag.New(p.params.Clock.Now()), err: "not connected yet"}
	}
}

// update changes what is known of source, unless another one is followed by now.
func (p *Puller) update(source string, change func(*state)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state != nil && p.state.source == source {
		change(p.state)
	}
}

func (p *Puller) resumed(at cursor.Position) {
	p.update(at.Source, func(s *state) {
		if !s.resumed || at.Index > s.replicated {
			stored := at.Current
			if stored.IsZero() {
				stored = at.Time // a cursor of an older version
			}
			s.tracker.Resume(stored, p.params.Clock.Now())
		}
		s.replicated, s.resumed, s.fullSync = at.Index, true, at.FullSync
	})
}

// heard notes a message that was accepted and applied, and says whether it is the first after a
// silence.
func (p *Puller) heard(at cursor.Position, sourceIndex uint64, complete bool, arrived time.Time) (first bool) {
	p.update(at.Source, func(s *state) {
		first = !s.connected
		s.connected, s.err = true, ""
		s.sourceIndex, s.replicated, s.fullSync = sourceIndex, at.Index, at.FullSync
		if complete {
			s.tracker.CaughtUp(arrived)
		}
	})
	return first
}

// failed notes why source is not followed, and says whether that is news.
func (p *Puller) failed(source string, err error) (news bool) {
	p.update(source, func(s *state) {
		news = s.connected || s.err != err.Error()
		s.connected, s.err = false, err.Error()
	})
	return news
}
