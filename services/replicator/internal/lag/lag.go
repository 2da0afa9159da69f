// Package lag knows how far this datacenter is behind a source, in seconds, at all times.
//
// Lag is the time since this datacenter was last known to have everything of the source. So it
// grows while the source is silent, whatever the reason: silence is never healthy. It is measured
// on this machine's clock, so that datacenters with different clocks do not show a lag that is not
// there; only until the first message does it lean on the source's clock (see Resume).
package lag

import "time"

// Tracker measures the lag behind one source. It is a value with no lock: its owner guards it.
type Tracker struct {
	complete time.Time
	caughtUp bool
}

// New returns a tracker that counts from start: before the first message, the lag is the time
// waited for it.
func New(start time.Time) Tracker { return Tracker{complete: start} }

// Resume takes the word of a stored cursor, which has the source's clock at the moment up to which
// everything is here: at the start, so that a restart does not make an old copy young, and when the
// cursor has moved without us, so that a replicator that lost a race does not call a young copy
// old. Do not call it again for a cursor that stands still.
func (t *Tracker) Resume(stored, now time.Time) {
	if stored.IsZero() {
		return
	}
	if stored.After(now) {
		stored = now // the source's clock is ahead of ours
	}
	if !t.caughtUp || stored.After(t.complete) {
		t.complete = stored
	}
}

// CaughtUp notes that everything the source had when its message arrived is here. Give the time of
// arrival, not of the commit: what changed at the source in between is not here.
func (t *Tracker) CaughtUp(arrived time.Time) {
	if !t.caughtUp || arrived.After(t.complete) {
		t.complete, t.caughtUp = arrived, true
	}
}

// Lag returns how long ago this datacenter was last known to have everything; never negative.
func (t *Tracker) Lag(now time.Time) time.Duration { return max(0, now.Sub(t.complete)) }
