// Package topology knows which datacenters there are and where their gateways listen.
//
// Two sources say so: gossip, at once and for every change, and the federation record in the
// registry, which is there before gossip has met anybody. Their union counts; where both know a
// datacenter, gossip's word does. What was known last is kept on disk, so that a gateway that
// starts while neither answers still finds its way. A Watcher's Remotes may be called from any
// goroutine.
package topology

import (
	"maps"
	"net"
	"slices"
	"time"
)

// remember is how long a datacenter that gossip no longer mentions stays known. A gossip pool that
// was just started, or is cut off, mentions nobody; that is no reason to forget where everybody is.
const remember = 7 * 24 * time.Hour

// Known is all that is known, by source. It is what the file holds.
type Known struct {
	Gossip   map[string]Sighting `json:"gossip"`
	Registry map[string][]string `json:"registry"`
}

// Sighting is what gossip last said about a datacenter.
type Sighting struct {
	Gateways []string  `json:"gateways"`
	Seen     time.Time `json:"seen"`
}

// fresh is how old a sighting on disk may be while its datacenter is still being mentioned.
const fresh = time.Hour

// withGossip returns what is known after gossip mentioned these datacenters, and whether it is
// worth keeping.
func (k Known) withGossip(datacenters map[string][]string, now time.Time) (Known, bool) {
	next := make(map[string]Sighting, len(datacenters))
	for dc, s := range k.Gossip {
		if now.Sub(s.Seen) < remember {
			next[dc] = s
		}
	}
	changed := len(next) != len(k.Gossip)
	for dc, gateways := range datacenters {
		gateways = valid(gateways)
		before, known := next[dc]
		if len(gateways) == 0 && known {
			gateways = before.Gateways
		}
		if known && slices.Equal(before.Gateways, gateways) && now.Sub(before.Seen) < fresh {
			continue
		}
		next[dc] = Sighting{Gateways: gateways, Seen: now}
		changed = true
	}
	return Known{Gossip: next, Registry: k.Registry}, changed
}

// withRegistry returns what is known after the federation record named these members, and whether
// that is news.
func (k Known) withRegistry(members map[string][]string) (Known, bool) {
	next := make(map[string][]string, len(members))
	for dc, gateways := range members {
		next[dc] = valid(gateways)
	}
	if maps.EqualFunc(next, k.Registry, slices.Equal) {
		return k, false
	}
	return Known{Gossip: k.Gossip, Registry: next}, true
}

// Remotes returns the gateways of every known datacenter.
func (k Known) Remotes() map[string][]string {
	out := maps.Clone(k.Registry)
	if out == nil {
		out = map[string][]string{}
	}
	for dc, s := range k.Gossip {
		if len(s.Gateways) > 0 || out[dc] == nil {
			out[dc] = s.Gateways
		}
	}
	return out
}

// valid returns the addresses that can be dialled, sorted.
func valid(addresses []string) []string {
	out := make([]string, 0, len(addresses))
	for _, address := range addresses {
		if host, port, err := net.SplitHostPort(address); err == nil && host != "" && port != "" && port != "0" {
			out = append(out, address)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
