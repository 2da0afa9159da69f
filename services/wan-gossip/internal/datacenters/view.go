package datacenters

import (
	"maps"
	"reflect"
	"sync"
	"time"

	"konsul.dev/services/wan-gossip/internal/members"
)

// View is the current list of datacenters. Safe for concurrent use; lists it answers are never
// changed afterwards.
type View struct {
	own, primary string

	mu         sync.Mutex
	members    []members.Member
	roundTrips map[string]time.Duration
	ids        map[string]string
	list       []Datacenter
	changed    chan struct{} // closed and replaced when list changes in more than a round trip
}

// NewView returns a view that knows no member yet.
func NewView(own, primary string) *View {
	return &View{own: own, primary: primary, roundTrips: map[string]time.Duration{}, changed: make(chan struct{})}
}

// SetMembers replaces the members.
func (v *View) SetMembers(all []members.Member, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.members = all
	v.identify()
	v.rebuild(now)
}

// SetRoundTrips replaces what has been measured. A first measurement counts as a change; a new
// value is seen with the next heartbeat.
func (v *View) SetRoundTrips(measured map[string]time.Duration, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.roundTrips = maps.Clone(measured)
	v.rebuild(now)
}

// Current returns the list and a channel that is closed when it changes.
func (v *View) Current() ([]Datacenter, <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.list, v.changed
}

// identify keeps, with mu held, the first id that a name was seen with: until every member of it
// has left, or was forgotten, whoever comes with another one is not that datacenter.
func (v *View) identify() {
	ids := map[string]string{}
	for _, speaks := range []func(members.Member) bool{
		func(m members.Member) bool { return m.Status != members.Left && m.DatacenterID == v.ids[m.Datacenter] },
		func(m members.Member) bool { return m.Status != members.Left },
		func(members.Member) bool { return true },
	} {
		for _, m := range v.members {
			if ids[m.Datacenter] == "" && speaks(m) {
				ids[m.Datacenter] = m.DatacenterID
			}
		}
	}
	v.ids = ids
}

// rebuild is called with mu held.
func (v *View) rebuild(now time.Time) {
	next := List(Inputs{Own: v.own, Primary: v.primary, Members: v.members, IDs: v.ids, RoundTrips: v.roundTrips})
	before := map[string]Datacenter{}
	for _, dc := range v.list {
		before[dc.Name] = dc
	}
	for i := range next {
		next[i].Since = now
		if old, ok := before[next[i].Name]; ok && old.State == next[i].State {
			next[i].Since = old.Since
		}
	}
	same := reflect.DeepEqual(withoutRoundTrips(v.list), withoutRoundTrips(next))
	v.list = next
	if !same {
		close(v.changed)
		v.changed = make(chan struct{})
	}
}

// withoutRoundTrips leaves only whether a round trip is known.
func withoutRoundTrips(list []Datacenter) []Datacenter {
	plain := make([]Datacenter, len(list))
	for i, dc := range list {
		dc.RoundTrip = 0
		plain[i] = dc
	}
	return plain
}
