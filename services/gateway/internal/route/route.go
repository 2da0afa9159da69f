// Package route decides where a connection goes, by its server name alone.
//
// Decide is a function of the name and a Table; a Table is immutable, so that any number of
// goroutines may decide while another makes the next one.
package route

import (
	"slices"

	"konsul.dev/pkg/identity"
)

// Kind says what is to be done with a connection.
type Kind int

const (
	// Reject closes it.
	Reject Kind = iota
	// Control passes the bytes to a server of a component of the own datacenter.
	Control
	// Workload ends mutual TLS here and passes the plaintext to an instance of a service of the own
	// datacenter.
	Workload
	// Remote passes the bytes to a gateway of another datacenter.
	Remote
)

// Reason says why a connection is rejected; it is the label of konsul_gateway_rejected_total.
type Reason string

// The reasons a name can be rejected for.
const (
	MalformedName      Reason = "malformed_name"
	ForeignTrustDomain Reason = "foreign_trust_domain"
	UnknownDatacenter  Reason = "unknown_datacenter"
	UnknownComponent   Reason = "unknown_component"
	NoGateway          Reason = "no_gateway"
)

// Decision is the answer for one name.
type Decision struct {
	Kind Kind
	// Reason is set for Reject.
	Reason Reason
	// Datacenter is where the connection ends; for Reject, if it is one that exists.
	Datacenter string
	// Service is the component or workload asked for.
	Service string
	// Addresses to choose from, for Control and Remote.
	Addresses []string
}

// Table is what decisions are made from.
type Table struct {
	datacenter  string
	trustDomain string
	components  map[string][]string
	remotes     map[string][]string
}

// New returns the table of a datacenter's gateway without other datacenters. components maps each
// reachable component to its servers.
func New(datacenter, trustDomain string, components map[string][]string) *Table {
	return &Table{datacenter: datacenter, trustDomain: trustDomain, components: components}
}

// With returns a table that reaches these datacenters through these gateways instead. Addresses in
// own are left out: a gateway that dialled itself would do so for ever.
func (t *Table) With(remotes map[string][]string, own []string) *Table {
	next := *t
	next.remotes = make(map[string][]string, len(remotes))
	for dc, addresses := range remotes {
		if dc == t.datacenter {
			continue
		}
		next.remotes[dc] = slices.DeleteFunc(slices.Clone(addresses), func(a string) bool { return slices.Contains(own, a) })
	}
	return &next
}

// Decide returns what to do with a connection for a server name.
func (t *Table) Decide(serverName string) Decision {
	name, err := identity.ParseSNI(serverName)
	switch {
	case err != nil:
		return Decision{Reason: MalformedName}
	case name.TrustDomain != t.trustDomain:
		return Decision{Reason: ForeignTrustDomain}
	case name.Datacenter != t.datacenter:
		return t.remote(name)
	case !name.Control:
		return Decision{Kind: Workload, Datacenter: name.Datacenter, Service: name.Service}
	}
	servers, known := t.components[name.Service]
	if !known {
		return Decision{Reason: UnknownComponent, Datacenter: name.Datacenter}
	}
	return Decision{Kind: Control, Datacenter: name.Datacenter, Service: name.Service, Addresses: servers}
}

// remote leaves it to the other datacenter whether it has such a component or service.
func (t *Table) remote(name identity.SNI) Decision {
	gateways, known := t.remotes[name.Datacenter]
	switch {
	case !known:
		return Decision{Reason: UnknownDatacenter}
	case len(gateways) == 0:
		return Decision{Reason: NoGateway, Datacenter: name.Datacenter}
	}
	return Decision{Kind: Remote, Datacenter: name.Datacenter, Service: name.Service, Addresses: gateways}
}
