// Package plan lays a federation out on one machine: which datacenters, on which addresses and
// ports, from which files and by which processes.
//
// It is pure: it looks at nothing and writes nothing, so every layout can be tested as a table.
// Its values are not changed after New and may be shared.
package plan

import (
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"konsul.dev/pkg/config"
	"konsul.dev/tools/lab/internal/portcheck"
)

// Processes says how a datacenter's services are spread over processes.
type Processes string

// The two process layouts.
const (
	// Single runs a whole datacenter in one konsul-dc.
	Single Processes = "single"
	// PerService runs each service as a process of its own, as compose and Kubernetes do.
	PerService Processes = "per-service"
)

// offsetStep separates the ports of two datacenters that share one address.
const offsetStep = 10000

// sharedHost is the address of all datacenters on systems that have only one loopback address.
const sharedHost = "127.0.0.1"

// Options is what a user chooses.
type Options struct {
	// Dir is the lab's folder; absolute.
	Dir string
	// Bin is the folder of konsul's programs; absolute.
	Bin string
	// Network is the first three octets of the datacenters' addresses; empty: all share 127.0.0.1
	// and move their ports by 10,000 each.
	Network   string
	Processes Processes
	// OTLPEndpoint is host:port of an OTLP/gRPC collector without TLS; empty: no traces are
	// exported.
	OTLPEndpoint string
}

// Layout is a whole federation.
type Layout struct {
	Options
	// Datacenters begin with the primary.
	Datacenters []Datacenter
}

// Datacenter is one datacenter's place on this machine.
type Datacenter struct {
	Name    string
	Primary bool
	// Host is the address of all its listeners.
	Host string

	offset int
	dir    string
}

var networkPattern = regexp.MustCompile(`^127\.(\d{1,3})\.(\d{1,3})$`)

// New lays out three datacenters: us-east, the primary, us-west and eu-central.
func New(o Options) (Layout, error) {
	if o.Processes != Single && o.Processes != PerService {
		return Layout{}, fmt.Errorf("--processes is %q: use %s or %s", o.Processes, Single, PerService)
	}
	if o.Network != "" && !validNetwork(o.Network) {
		return Layout{}, fmt.Errorf("--network is %q: give the first three octets of loopback addresses, such as 127.0.27", o.Network)
	}
	layout := Layout{Options: o}
	for i, name := range []string{"us-east", "us-west", "eu-central"} {
		dc := Datacenter{Name: name, Primary: i == 0, dir: o.Dir}
		if o.Network == "" {
			dc.Host, dc.offset = sharedHost, i*offsetStep
		} else {
			dc.Host = o.Network + "." + strconv.Itoa(i+1)
		}
		layout.Datacenters = append(layout.Datacenters, dc)
	}
	return layout, nil
}

func validNetwork(network string) bool {
	return networkPattern.MatchString(network) && net.ParseIP(network+".1") != nil
}

// Primary returns the primary datacenter.
func (l Layout) Primary() Datacenter { return l.Datacenters[0] }

// Secondaries returns the others.
func (l Layout) Secondaries() []Datacenter { return l.Datacenters[1:] }

// Names returns the datacenters' names, the primary's first.
func (l Layout) Names() []string {
	var names []string
	for _, dc := range l.Datacenters {
		names = append(names, dc.Name)
	}
	return names
}

// Find returns the datacenter of a name.
func (l Layout) Find(name string) (Datacenter, error) {
	i := slices.IndexFunc(l.Datacenters, func(dc Datacenter) bool { return dc.Name == name })
	if i < 0 {
		return Datacenter{}, fmt.Errorf("no datacenter %q: this lab has us-east, us-west and eu-central", name)
	}
	return l.Datacenters[i], nil
}

// Addr returns where the datacenter listens for what has this default port.
func (d Datacenter) Addr(port int) string {
	return net.JoinHostPort(d.Host, strconv.Itoa(d.Port(port)))
}

// Port returns a default port as the datacenter uses it.
func (d Datacenter) Port(port int) int { return port + d.offset }

// URL returns where the datacenter's HTTP edge is reached.
func (d Datacenter) URL() string { return "https://" + d.Addr(config.PortHTTP) }

// Dir returns the datacenter's own folder.
func (d Datacenter) Dir() string { return filepath.Join(d.dir, d.Name) }

// ConfigFile returns the path of konsul.yaml.
func (d Datacenter) ConfigFile() string { return filepath.Join(d.Dir(), "konsul.yaml") }

// DataDir returns the folder for the services' state.
func (d Datacenter) DataDir() string { return filepath.Join(d.Dir(), "data") }

// SecretFile returns the path of the datacenter secret.
func (d Datacenter) SecretFile() string { return filepath.Join(d.Dir(), "secret") }

// Node returns the node name of the datacenter's one machine.
func (d Datacenter) Node() string { return d.Name + "-1" }

// KeysDir returns the folder of the keys that components have in place of the datacenter secret.
func (d Datacenter) KeysDir() string { return filepath.Join(d.Dir(), "keys") }

// KeyFile returns the path of a component's key.
func (d Datacenter) KeyFile(component string) string { return filepath.Join(d.KeysDir(), component) }

// JoinTokenFile returns the path of the token that lets a secondary into the federation.
func (d Datacenter) JoinTokenFile() string { return filepath.Join(d.Dir(), "join-token") }

// TokenFile returns the path of the management token, which exists in the primary only.
func (d Datacenter) TokenFile() string { return filepath.Join(d.Dir(), "management-token") }

// RootsFile returns the path of the federation's trust anchors, for clients.
func (d Datacenter) RootsFile() string { return filepath.Join(d.Dir(), "roots.pem") }

// ServicesDir returns the folder of the agent's service definitions.
func (d Datacenter) ServicesDir() string { return filepath.Join(d.Dir(), "services") }

// LogFile returns where a process writes its log.
func (d Datacenter) LogFile(process string) string {
	return filepath.Join(d.Dir(), "log", process+".log")
}

// EnvFile returns the path of the settings for scripts.
func (d Datacenter) EnvFile() string { return filepath.Join(d.dir, d.Name+".env") }

// PIDFile returns the path of the list of process ids.
func (d Datacenter) PIDFile() string { return filepath.Join(d.dir, d.Name+".pid") }

// Needs returns every address that the federation binds.
func (l Layout) Needs() []portcheck.Need {
	var needs []portcheck.Need
	for _, dc := range l.Datacenters {
		for _, p := range ports(l.Processes) {
			for _, network := range p.networks {
				needs = append(needs, portcheck.Need{
					Network: network, Address: dc.Addr(p.port), Purpose: dc.Name + " " + p.purpose,
				})
			}
		}
	}
	return needs
}

type port struct {
	port     int
	purpose  string
	networks []string
}

func ports(processes Processes) []port {
	tcp, both := []string{"tcp"}, []string{"tcp", "udp"}
	all := []port{
		{config.PortRaft, "registry Raft", tcp},
		{config.PortWANGossip, "wan-gossip", both},
		{config.PortGateway, "gateway", tcp},
		{config.PortHTTP, "gateway HTTP", tcp},
		{config.PortRegistry, "registry", tcp},
		{config.PortWANGossipGRPC, "wan-gossip gRPC", tcp},
		{config.PortReplicator, "replicator", tcp},
		{config.PortCA, "ca", tcp},
		{config.PortFailoverRouter, "failover-router", tcp},
		{config.PortProxy, "failover-router proxy", tcp},
		{config.PortAgent, "agent", tcp},
		{config.PortDNS, "agent DNS", both},
	}
	for _, p := range programs(processes) {
		all = append(all, port{p.telemetry, p.name + " telemetry", tcp})
	}
	for _, s := range samples() {
		all = append(all, port{s.port, "sample " + s.name, tcp})
	}
	return all
}
