// Package datacenters turns members of the gossip pool into datacenters: which exist, in what
// state, how far away, reached through which gateways.
//
// List and Health are plain functions. View keeps the current list for many readers and wakes those
// who wait for a change; it is safe for concurrent use.
package datacenters

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"konsul.dev/services/wan-gossip/internal/members"
)

// State of a datacenter.
type State string

// The states a datacenter can be in.
const (
	// Alive: at least one member answers.
	Alive State = "alive"
	// Failed: every member that has not left is considered dead.
	Failed State = "failed"
	// Left: every member has left.
	Left State = "left"
)

// Datacenter is a datacenter as gossip sees it.
type Datacenter struct {
	Name     string
	ID       string
	State    State
	Gateways []string
	Members  []members.Member
	// Rivals are members that claim the name with another datacenter's id. They say nothing of the
	// datacenter.
	Rivals  []members.Member
	Primary bool
	// RoundTrip means something when Measured; it is zero for the own datacenter.
	RoundTrip time.Duration
	Measured  bool
	// Since is when State last changed, by this process's clock.
	Since time.Time
}

// Inputs is what a list is made of.
type Inputs struct {
	Own     string
	Primary string
	Members []members.Member
	// IDs holds the ids by which datacenters are known; the first id of a name is the datacenter's.
	IDs map[string]string
	// RoundTrips holds what has been measured, by datacenter.
	RoundTrips map[string]time.Duration
}

// List returns every datacenter that has a member, ordered by name, without Since.
func List(in Inputs) []Datacenter {
	byName := map[string][]members.Member{}
	for _, m := range in.Members {
		byName[m.Datacenter] = append(byName[m.Datacenter], m)
	}
	list := make([]Datacenter, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		all := byName[name]
		var rivals []members.Member
		if id := in.IDs[name]; id != "" {
			all = slices.DeleteFunc(slices.Clone(all), func(m members.Member) bool { return m.DatacenterID != id })
			rivals = slices.DeleteFunc(byName[name], func(m members.Member) bool { return m.DatacenterID == id || m.Status == members.Left })
		}
		dc := describe(name, all)
		dc.Rivals = rivals
		dc.Primary = name == in.Primary
		dc.RoundTrip, dc.Measured = in.RoundTrips[name]
		if name == in.Own {
			dc.RoundTrip, dc.Measured = 0, true
		}
		list = append(list, dc)
	}
	return list
}

// describe takes what a datacenter says from its liveliest members: a dead one's word may be old.
func describe(name string, all []members.Member) Datacenter {
	slices.SortFunc(all, func(a, b members.Member) int { return cmp.Compare(a.Name, b.Name) })
	dc := Datacenter{Name: name, Members: all, State: Left}
	best := -1
	for _, m := range all {
		rank := liveliness(m.Status)
		if rank > best {
			best, dc.ID, dc.Gateways = rank, m.DatacenterID, nil
		}
		if rank == best {
			dc.Gateways = append(dc.Gateways, m.Gateways...)
		}
		switch {
		case m.Up():
			dc.State = Alive
		case m.Status == members.Failed && dc.State != Alive:
			dc.State = Failed
		}
	}
	slices.Sort(dc.Gateways)
	dc.Gateways = slices.Compact(dc.Gateways)
	return dc
}

func liveliness(s members.Status) int {
	switch s {
	case members.Alive:
		return 3
	case members.Leaving:
		return 2
	case members.Failed:
		return 1
	default:
		return 0
	}
}

// Connected counts the datacenters that are alive, the own one included.
func Connected(list []Datacenter) int {
	n := 0
	for _, dc := range list {
		if dc.State == Alive {
			n++
		}
	}
	return n
}

// Health returns the share of datacenters that are alive among those that have not left: 1 is well.
func Health(list []Datacenter) float64 {
	known := 0
	for _, dc := range list {
		if dc.State != Left {
			known++
		}
	}
	if known == 0 {
		return 0
	}
	return float64(Connected(list)) / float64(known)
}
