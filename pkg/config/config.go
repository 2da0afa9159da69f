// Package config loads what an operator wrote, strictly, and says all that is wrong with it at
// once.
//
// Sources, later ones win: the defaults already in the struct, YAML files, environment variables
// (KONSUL_SERVER__DATACENTER for server.datacenter), --set flags. One file serves every service of
// a datacenter: each service reads the shared sections and its own, and leaves its siblings' alone.
// A key that nobody knows is an error that names it.
package config

import (
	"errors"
	"net"
	"os"
	"regexp"
	"strconv"
	"time"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/obs"
)

// The default ports of a datacenter.
const (
	PortRaft           = 8300
	PortWANGossip      = 8302
	PortGateway        = 8443
	PortHTTP           = 8500
	PortRegistry       = 8502
	PortWANGossipGRPC  = 8512
	PortReplicator     = 8522
	PortCA             = 8532
	PortFailoverRouter = 8552
	PortProxy          = 8553
	PortAgent          = 8562
	PortDNS            = 8600
)

// Server is the `server` section, shared by every service of a datacenter. Its keys are those of
// ADR-0027.
type Server struct {
	// Datacenter is the name of the datacenter this process belongs to.
	Datacenter string `koanf:"datacenter"`
	// PrimaryDatacenter is the datacenter that holds the root of trust and the global configuration
	// at first start.
	PrimaryDatacenter string `koanf:"primary_datacenter"`
	// Node is this machine's name; the default is the host name.
	Node string `koanf:"node"`
	// BindAddr is the host on which listeners bind that do not say otherwise.
	BindAddr string `koanf:"bind_addr"`
	// DataDir holds a folder for each service.
	DataDir string `koanf:"data_dir"`
	// SecretFile holds the component's key, which `konsulctl secret derive` makes; for the registry
	// and the ca, and where a whole datacenter is one process, the datacenter secret: at least 32
	// random bytes as base64 or hex.
	SecretFile string `koanf:"secret_file"`
	WAN        WAN    `koanf:"wan"`
	Limits     Limits `koanf:"limits"`
}

// WAN is the `server.wan` section: the Serf pool across datacenters.
type WAN struct {
	// Enabled makes this datacenter a member of the pool; false: it stands alone.
	Enabled bool `koanf:"enabled"`
	// BindAddr is host:port for TCP and UDP.
	BindAddr string `koanf:"bind_addr"`
	// AdvertiseAddr is host:port as other datacenters reach it; gossip begins once DNS knows a host
	// name.
	AdvertiseAddr string `koanf:"advertise_addr"`
	// Members lists the other datacenters' gossip addresses (used in the primary).
	Members []string `koanf:"members"`
	// Join lists gossip addresses to join (used in secondaries).
	Join []string `koanf:"join"`
}

// Limits is the `server.limits` section: what the callers of each gRPC server of this process may
// take. Agents and workloads run on hosts that are not the datacenter's; the other services may
// carry the calls of many.
type Limits struct {
	// MaxConnections bounds the connections of one server; no more than a quarter of them may be of
	// callers without a certificate. One too many is closed.
	MaxConnections int `koanf:"max_connections"`
	// MaxConcurrentStreams bounds the calls at once on one connection of an agent or a workload.
	MaxConcurrentStreams int `koanf:"max_concurrent_streams"`
	// MaxCarriedStreams bounds the calls at once on one connection of another service.
	MaxCarriedStreams int `koanf:"max_carried_streams"`
	// MaxInflightBytes bounds the requests, in bytes, that one server reads and works at together;
	// a quarter of it is for agents, workloads and callers without a certificate. One too many
	// waits for RequestReadTimeout and is refused.
	MaxInflightBytes int64 `koanf:"max_inflight_bytes"`
	// RequestReadTimeout is about how long a request of those may take to arrive, at most twice as
	// long; then their connection is closed.
	RequestReadTimeout time.Duration `koanf:"request_read_timeout"`
}

// DefaultLimits returns the defaults.
func DefaultLimits() Limits {
	return Limits{
		MaxConnections: 4096, MaxConcurrentStreams: 1000, MaxCarriedStreams: 1 << 16,
		MaxInflightBytes: 256 << 20, RequestReadTimeout: 10 * time.Second,
	}
}

const (
	leastInflight = 32 << 20
	mostInflight  = 1 << 40
	mostStreams   = 1 << 20
)

func (l Limits) validate() error {
	var errs []error
	for _, n := range []struct {
		field              string
		value, least, most int64
	}{
		{"server.limits.max_connections", int64(l.MaxConnections), 16, mostStreams},
		{"server.limits.max_concurrent_streams", int64(l.MaxConcurrentStreams), 16, mostStreams},
		{"server.limits.max_carried_streams", int64(l.MaxCarriedStreams), 100, mostStreams},
		{"server.limits.max_inflight_bytes", l.MaxInflightBytes, leastInflight, mostInflight},
	} {
		if n.value < n.least || n.value > n.most {
			errs = append(errs, fault.Invalid(n.field, "%d is not from %d to %d", n.value, n.least, n.most).WithRemedy("leave it out for the default"))
		}
	}
	if l.RequestReadTimeout < time.Second {
		errs = append(errs, fault.Invalid("server.limits.request_read_timeout", "%s is less than 1s", l.RequestReadTimeout).
			WithRemedy("leave it out for the default"))
	}
	return errors.Join(errs...)
}

// Endpoints is the `endpoints` section: where the datacenter's own services listen, host:port.
type Endpoints struct {
	// Registry is every server of the cluster; default: port 8502 of this machine.
	Registry []string `koanf:"registry"`
	// CA is the certificate authority; default: port 8532 of this machine.
	CA []string `koanf:"ca"`
	// Gateway is every gateway's port for datacenters and services; default: port 8443 of this
	// machine.
	Gateway []string `koanf:"gateway"`
	// WANGossip is where the list of datacenters is served; default: port 8512 of this machine.
	WANGossip []string `koanf:"wan_gossip"`
	// Replicator is where the status of replication is served; default: port 8522 of this machine.
	Replicator []string `koanf:"replicator"`
	// FailoverRouter is where services are resolved; default: port 8552 of this machine.
	FailoverRouter []string `koanf:"failover_router"`
}

// Base is what every service's Config begins with.
type Base struct {
	Server    Server     `koanf:"server"`
	Endpoints Endpoints  `koanf:"endpoints"`
	Telemetry obs.Config `koanf:"telemetry"`

	// notes are about retired keys that were found.
	notes []string
}

// DefaultBase returns a datacenter on loopback with the default ports.
func DefaultBase() Base {
	node, err := os.Hostname()
	if err != nil {
		node = "localhost"
	}
	return Base{
		Server: Server{
			Node: node, BindAddr: "127.0.0.1", DataDir: "konsul-data",
			WAN: WAN{Enabled: true}, Limits: DefaultLimits(),
		},
		Telemetry: obs.DefaultConfig(),
	}
}

// Normalize fills what follows from other settings. Call it after loading and before Validate.
func (b *Base) Normalize() {
	if b.Server.PrimaryDatacenter == "" {
		b.Server.PrimaryDatacenter = b.Server.Datacenter
	}
	if b.Server.WAN.BindAddr == "" {
		b.Server.WAN.BindAddr = b.Listen(PortWANGossip)
	}
	for _, e := range []struct {
		addrs *[]string
		port  int
	}{
		{&b.Endpoints.Registry, PortRegistry},
		{&b.Endpoints.CA, PortCA},
		{&b.Endpoints.Gateway, PortGateway},
		{&b.Endpoints.WANGossip, PortWANGossipGRPC},
		{&b.Endpoints.Replicator, PortReplicator},
		{&b.Endpoints.FailoverRouter, PortFailoverRouter},
	} {
		if len(*e.addrs) == 0 {
			*e.addrs = []string{b.local(e.port)}
		}
	}
}

// Listen returns the address on which a service binds a port by default.
func (b *Base) Listen(port int) string {
	return net.JoinHostPort(b.Server.BindAddr, strconv.Itoa(port))
}

// local returns how this machine reaches a port bound on BindAddr.
func (b *Base) local(port int) string {
	host := b.Server.BindAddr
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// Primary reports whether this datacenter was configured as the first primary.
func (b *Base) Primary() bool { return b.Server.Datacenter == b.Server.PrimaryDatacenter }

// Settings returns the section itself, for code that holds a config only by interface.
func (b *Base) Settings() *Base { return b }

// ValidDatacenter reports whether a name may name a datacenter: it becomes a DNS label and a part
// of a SPIFFE id.
func ValidDatacenter(name string) bool { return datacenterName.MatchString(name) }

var datacenterName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Validate reports every problem of the shared sections at once.
func (b *Base) Validate() error {
	var errs []error
	dcRemedy := "use a DNS label such as us-east: lower-case letters, digits and inner hyphens, at most 63"
	if !ValidDatacenter(b.Server.Datacenter) {
		errs = append(errs, fault.Invalid("server.datacenter", "%q is no datacenter name", b.Server.Datacenter).WithRemedy(dcRemedy))
	}
	if !ValidDatacenter(b.Server.PrimaryDatacenter) {
		errs = append(errs, fault.Invalid("server.primary_datacenter", "%q is no datacenter name", b.Server.PrimaryDatacenter).WithRemedy(dcRemedy))
	}
	if b.Server.DataDir == "" {
		errs = append(errs, fault.Invalid("server.data_dir", "is empty").WithRemedy("name a folder on a durable disk"))
	}
	if b.Server.SecretFile == "" {
		errs = append(errs, fault.Invalid("server.secret_file", "is empty").WithRemedy("make a datacenter secret with `konsulctl secret generate`, the component's key from it with `konsulctl secret derive`, and name its path"))
	}
	if b.Server.Node == "" {
		errs = append(errs, fault.Invalid("server.node", "is empty").WithRemedy("name this machine"))
	}
	errs = append(errs, b.Server.Limits.validate(), CheckAddress("server.wan.bind_addr", b.Server.WAN.BindAddr))
	if b.Server.WAN.AdvertiseAddr != "" {
		errs = append(errs, CheckAddress("server.wan.advertise_addr", b.Server.WAN.AdvertiseAddr))
	}
	errs = append(errs,
		checkAddresses("server.wan.members", b.Server.WAN.Members),
		checkAddresses("server.wan.join", b.Server.WAN.Join),
		checkAddresses("endpoints.registry", b.Endpoints.Registry),
		checkAddresses("endpoints.ca", b.Endpoints.CA),
		checkAddresses("endpoints.gateway", b.Endpoints.Gateway),
		checkAddresses("endpoints.wan_gossip", b.Endpoints.WANGossip),
		checkAddresses("endpoints.replicator", b.Endpoints.Replicator),
		checkAddresses("endpoints.failover_router", b.Endpoints.FailoverRouter),
		b.Telemetry.Validate(),
	)
	return errors.Join(errs...)
}

// CheckAddress returns an error naming the field unless address is host:port with a port of 0 to
// 65535.
func CheckAddress(field, address string) error {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fault.Invalid(field, "%q is no address", address).WithRemedy("write host:port, such as 127.0.0.1:8502")
	}
	return nil
}

func checkAddresses(field string, addresses []string) error {
	var errs []error
	for i, address := range addresses {
		errs = append(errs, CheckAddress(field+"["+strconv.Itoa(i)+"]", address))
	}
	return errors.Join(errs...)
}
