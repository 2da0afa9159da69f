// Package members is what the gossip pool's members say about themselves, and who may be one.
//
// A member's tags name its federation, its datacenter and the datacenter's immutable id. Two
// datacenters of one name, or members of another federation, never share a pool: Admit says so.
// Everything here is a plain function of its inputs.
package members

import (
	"errors"
	"fmt"
	"strings"
)

// ErrOldAddress means that others still hold this member at an address it has left. They take the
// new one once they have found the old one dead.
var ErrOldAddress = errors.New("others still hold this member at its old address")

// Status of a member, in Serf's words.
type Status string

// The states a member can be in.
const (
	Alive   Status = "alive"
	Leaving Status = "leaving"
	Left    Status = "left"
	Failed  Status = "failed"
)

// Tag names on the wire. Serf packs all of a member's tags into 512 bytes, so they are short.
const (
	tagRole         = "role"
	tagDatacenter   = "dc"
	tagDatacenterID = "dcid"
	tagFederation   = "fed"
	tagGateways     = "gw"
	tagVersion      = "v"

	role = "konsul"
)

// Self is what this member says about itself.
type Self struct {
	Name         string
	Federation   string
	Datacenter   string
	DatacenterID string
	// Gateways are the addresses at which other datacenters reach this one.
	Gateways []string
	Version  string
}

// Tags returns what this member tells the pool.
func (s Self) Tags() map[string]string {
	return map[string]string{
		tagRole: role, tagDatacenter: s.Datacenter, tagDatacenterID: s.DatacenterID, tagFederation: s.Federation,
		tagGateways: strings.Join(s.Gateways, ","), tagVersion: s.Version,
	}
}

// Member is one member of the pool.
type Member struct {
	Name         string
	Address      string // host:port of its gossip listener
	Status       Status
	Federation   string
	Datacenter   string
	DatacenterID string
	Gateways     []string
	Tags         map[string]string
}

// Parse reads what a member says about itself.
func Parse(name, address string, status Status, tags map[string]string) Member {
	m := Member{
		Name: name, Address: address, Status: status, Tags: tags,
		Federation: tags[tagFederation], Datacenter: tags[tagDatacenter], DatacenterID: tags[tagDatacenterID],
	}
	for gateway := range strings.SplitSeq(tags[tagGateways], ",") {
		if gateway != "" {
			m.Gateways = append(m.Gateways, gateway)
		}
	}
	return m
}

// Up reports whether the member is there: one that is leaving still answers.
func (m Member) Up() bool { return m.Status == Alive || m.Status == Leaving }

// Reasons of a refusal, for metrics.
const (
	ReasonStranger   = "stranger"
	ReasonFederation = "federation"
	ReasonDuplicate  = "duplicate_datacenter"
	ReasonEncryption = "encryption"
)

// Refusal is why a member may not be in the pool.
type Refusal struct {
	Reason string
	Text   string
	Remedy string
}

// Error returns the text with the remedy.
func (r *Refusal) Error() string { return r.Text + " (" + r.Remedy + ")" }

// Admit returns why not, unless the candidate may be in a pool with self and the known members.
// A datacenter's name stays taken until every member of it has left or been forgotten.
func (s Self) Admit(candidate Member, known []Member) *Refusal {
	switch {
	case candidate.Tags[tagRole] != role || candidate.Datacenter == "" || candidate.DatacenterID == "":
		return &Refusal{
			Reason: ReasonStranger,
			Text:   fmt.Sprintf("%s at %s is no konsul datacenter", candidate.Name, candidate.Address),
			Remedy: "point server.wan.members and server.wan.join at wan-gossip of konsul only",
		}
	case candidate.Federation != s.Federation:
		return &Refusal{
			Reason: ReasonFederation,
			Text: fmt.Sprintf("%s at %s belongs to federation %q, this datacenter %s to %q",
				candidate.Name, candidate.Address, candidate.Federation, s.Datacenter, s.Federation),
			Remedy: "bring the datacenter into the federation with a join token of its primary",
		}
	case candidate.Status == Left:
		return nil
	case candidate.Datacenter == s.Datacenter && candidate.DatacenterID != s.DatacenterID:
		return duplicate(candidate, s.DatacenterID, s.Name)
	}
	for _, m := range known {
		if m.Datacenter == candidate.Datacenter && m.DatacenterID != candidate.DatacenterID && m.Status != Left {
			return duplicate(candidate, m.DatacenterID, m.Name)
		}
	}
	return nil
}

func duplicate(candidate Member, id, holder string) *Refusal {
	return &Refusal{
		Reason: ReasonDuplicate,
		Text: fmt.Sprintf("two datacenters are called %q: %s at %s has datacenter id %s, %s has %s",
			candidate.Datacenter, candidate.Name, candidate.Address, candidate.DatacenterID, holder, id),
		Remedy: "give one of them another server.datacenter; members of one datacenter share server.secret_file",
	}
}
