// Package registry is the front door of the registry service: the only service that keeps state. It
// runs one server of a datacenter's Raft cluster, serves the catalogue, the key-value store,
// watches and the federation record over gRPC, and passes calls on to its leader and to other
// datacenters.
//
// New, Start and Stop are the service in plain Go; Module is the same for fx. DESIGN.md beside this
// file has what survives which loss, the journey of a write and of a read, and the rooms.
package registry

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
	"konsul.dev/services/registry/internal/catalog"
	"konsul.dev/services/registry/internal/raftnode"
)

// Config is everything the service can be told.
type Config struct {
	config.Base `koanf:",squash"`
	Registry    Settings `koanf:"registry"`
}

// Settings is the `registry` section.
type Settings struct {
	// Listen is where gRPC is served; default: server.bind_addr with port 8502.
	Listen string `koanf:"listen"`
	// RaftListen is where Raft peers connect; default: server.bind_addr with port 8300.
	RaftListen string `koanf:"raft_listen"`
	// RaftAdvertise is how peers reach RaftListen; default: raft_listen.
	RaftAdvertise string `koanf:"raft_advertise"`
	// ID names this server in its cluster, for ever; default: server.node.
	ID string `koanf:"id"`
	// Advertise is how the other servers reach Listen; default: the address in servers, or listen.
	Advertise string `koanf:"advertise"`
	// Servers is the cluster at its first start, the same on every server.
	Servers []Server `koanf:"servers"`
	// BootstrapExpect is how many servers found the cluster at its first start, this one included;
	// default: as many as servers has, or with join 0, which means that this server only joins a
	// cluster that exists.
	BootstrapExpect int `koanf:"bootstrap_expect"`
	// Join is gRPC addresses of other servers to ask for the cluster. Without servers and join this
	// server is a cluster of its own.
	Join []string `koanf:"join"`
	// MaxValueBytes bounds a KV value.
	MaxValueBytes int `koanf:"max_value_bytes"`
	// MaxTxnOperations bounds the comparisons and operations of a transaction.
	MaxTxnOperations int `koanf:"max_txn_operations"`
	// MaxTxnBytes bounds a transaction.
	MaxTxnBytes int `koanf:"max_txn_bytes"`
	// InitialManagementTokenFile holds a token that may do everything; used in the primary.
	InitialManagementTokenFile string `koanf:"initial_management_token_file"`
	// GatewayAddresses is where other datacenters reach this one's gateways; default:
	// server.bind_addr with port 8443.
	GatewayAddresses []string  `koanf:"gateway_addresses"`
	Raft             Raft      `koanf:"raft"`
	Catalog          Catalog   `koanf:"catalog"`
	Audit            Audit     `koanf:"audit"`
	Lease            Lease     `koanf:"lease"`
	Limits           Limits    `koanf:"limits"`
	Retention        Retention `koanf:"retention"`
	Store            Store     `koanf:"store"`
	Backup           Backup    `koanf:"backup"`
	// MinFreeBytes is how much room the data folder's file system must have: with less the server
	// stops in order, and one that starts waits for a quarter more. Leave room for twice
	// store.tail_bytes and two Raft segments. 0: it is not looked after.
	MinFreeBytes uint64 `koanf:"min_free_bytes"`
}

// Lease is the `registry.lease` section.
type Lease struct {
	// MinTTL and MaxTTL bound how long a lease may go without being kept alive.
	MinTTL time.Duration `koanf:"min_ttl"`
	MaxTTL time.Duration `koanf:"max_ttl"`
	// LockDelay is how long a lock that was lost with its lease is kept from everybody, unless its
	// holder said otherwise.
	LockDelay time.Duration `koanf:"lock_delay"`
}

// Catalog is the `registry.catalog` section.
type Catalog struct {
	// ReapAfter is how long a node may be dead before it is deregistered with its services and
	// checks.
	ReapAfter time.Duration `koanf:"reap_after"`
	// EmptyNodeReapAfter is how long a node that only registrations of instances made may go
	// without any before it is deregistered, from the last one's end or the leader's election on.
	// Nodes that somebody registered for themselves stay. 0: for ever.
	EmptyNodeReapAfter time.Duration `koanf:"empty_node_reap_after"`
	// MaxServicesPerRequest bounds the instances that one request registers.
	MaxServicesPerRequest int `koanf:"max_services_per_request"`
}

// Audit is the `registry.audit` section.
type Audit struct {
	// Path is the file to which administrative changes are written; "-" is the service's log;
	// default: audit.log in the registry's folder of server.data_dir.
	Path string `koanf:"path"`
	// DeniedPath is the file to which refusals are written; "-" is the service's log; default:
	// beside path, with -denied behind its name, such as audit-denied.log.
	DeniedPath string `koanf:"denied_path"`
	// DeniedPerMinute is how many refusals of the same caller, method and outcome are written in a
	// minute; one line counts the rest. 0: all are written.
	DeniedPerMinute int `koanf:"denied_per_minute"`
	// MaxBytes is the size at which a file is put aside as PATH.1.
	MaxBytes int64 `koanf:"max_bytes"`
	// Keep is how many files that were put aside are kept of each.
	Keep int `koanf:"keep"`
}

// Server is one server of the cluster.
type Server struct {
	// ID is its registry.id.
	ID string `koanf:"id"`
	// RaftAddress is its Raft listener, host:port.
	RaftAddress string `koanf:"raft_address"`
	// Address is its gRPC listener, host:port.
	Address string `koanf:"address"`
}

// Raft is the `registry.raft` section.
type Raft struct {
	// HeartbeatTimeout is how long a follower goes without its leader before it asks for an
	// election.
	HeartbeatTimeout time.Duration `koanf:"heartbeat_timeout"`
	// ElectionTimeout is how long a candidate waits for votes.
	ElectionTimeout time.Duration `koanf:"election_timeout"`
	// LeaderLease is how long a leader goes without a majority before it steps down.
	LeaderLease time.Duration `koanf:"leader_lease"`
	// ReadLease is how long a follower may answer default reads without asking the leader, no more
	// than half of LeaderLease. It is also how long a write waits, once, for a follower that died.
	// Zero: followers always ask.
	ReadLease time.Duration `koanf:"read_lease"`
	// SnapshotThreshold is how many log entries make a snapshot worth while.
	SnapshotThreshold uint64 `koanf:"snapshot_threshold"`
	// TrailingLogs is how many entries are kept behind a snapshot, for followers that lag.
	TrailingLogs uint64 `koanf:"trailing_logs"`
	// SnapshotBytes is how much log makes a snapshot worth while, however few its entries.
	SnapshotBytes uint64 `koanf:"snapshot_bytes"`
	// TrailingBytes is about how much log is kept behind such a snapshot.
	TrailingBytes uint64 `koanf:"trailing_bytes"`
	// SegmentBytes is the size of a log segment.
	SegmentBytes int `koanf:"segment_bytes"`
	// MaxInFlight bounds the writes that wait for their outcome; more are refused.
	MaxInFlight int `koanf:"max_in_flight"`
	// MaxInFlightBytes bounds what those writes weigh together.
	MaxInFlightBytes int `koanf:"max_in_flight_bytes"`
}

// DefaultConfig is a datacenter of one server on loopback.
func DefaultConfig() Config {
	timing := raftnode.DefaultTiming()
	retention, store := defaultStore()
	return Config{
		Base: config.DefaultBase(),
		Registry: Settings{
			MaxValueBytes: 512 << 10, MaxTxnOperations: 128, MaxTxnBytes: 2 << 20,
			Limits:    defaultLimits(),
			Lease:     Lease{MinTTL: time.Second, MaxTTL: 24 * time.Hour, LockDelay: 15 * time.Second},
			Audit:     Audit{MaxBytes: 64 << 20, Keep: 10, DeniedPerMinute: 30},
			Catalog:   Catalog{ReapAfter: 72 * time.Hour, EmptyNodeReapAfter: 72 * time.Hour, MaxServicesPerRequest: catalog.DefaultMaxServices},
			Retention: retention, Store: store, Backup: defaultBackup(), MinFreeBytes: 128 << 20,
			Raft: Raft{
				HeartbeatTimeout: timing.Heartbeat, ElectionTimeout: timing.Election, LeaderLease: timing.Lease, ReadLease: 150 * time.Millisecond,
				SnapshotThreshold: 64 << 10, TrailingLogs: 32 << 10, SnapshotBytes: 256 << 20, TrailingBytes: 64 << 20, SegmentBytes: 32 << 20, MaxInFlight: 8 << 10, MaxInFlightBytes: 64 << 20,
			},
		},
	}
}

// Normalize fills what follows from other settings.
func (c *Config) Normalize() {
	c.Base.Normalize()
	r := &c.Registry
	fill := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	fill(&r.Listen, c.Listen(config.PortRegistry))
	fill(&r.RaftListen, c.Listen(config.PortRaft))
	fill(&r.RaftAdvertise, r.RaftListen)
	fill(&r.ID, c.Server.Node)
	if r.Advertise == "" {
		r.Advertise = r.own().Address
	}
	fill(&r.Advertise, r.Listen)
	if len(r.Servers) == 0 && len(r.Join) == 0 && r.BootstrapExpect == 0 {
		r.BootstrapExpect = 1
	}
	if r.BootstrapExpect == 0 {
		r.BootstrapExpect = len(r.Servers)
	}
	if len(r.GatewayAddresses) == 0 {
		r.GatewayAddresses = []string{c.Listen(config.PortGateway)}
	}
}

// RetiredKeys maps keys of older files, which have no effect, to what to do instead.
func (c *Config) RetiredKeys() map[string]string {
	return map[string]string{
		"registry.heap_bytes":            "set GOGC and GOMEMLIMIT in the environment instead",
		"registry.raft.zero_ahead_bytes": "remove it",
	}
}

// limits of settings.
const (
	leastValueBytes = 1 << 10
	mostValueBytes  = 1<<20 - rowFrame // more would not fit into Badger's tree and gRPC's messages
	leastSegment    = 1 << 20
	leastAuditBytes = 64 << 10
	// mostTxnBytes leaves room in gRPC's 4 MiB.
	mostTxnBytes      = 3 << 20
	mostTxnOperations = 4096
	leastTTL          = 500 * time.Millisecond
	mostServers       = 7
)

// Validate reports every problem at once.
func (c *Config) Validate() error {
	r := c.Registry
	errs := []error{
		c.Base.Validate(),
		config.CheckAddress("registry.listen", r.Listen),
		config.CheckAddress("registry.raft_listen", r.RaftListen),
		config.CheckAddress("registry.raft_advertise", r.RaftAdvertise),
		r.validateServers(),
		r.validateJoin(),
		r.Raft.validate(),
		r.validateStore(),
		r.Catalog.validate(),
		r.Backup.validate(),
		r.Audit.validate(),
		r.Limits.validate(),
		r.Lease.validate(),
		r.validateKV(),
	}
	for i, address := range r.GatewayAddresses {
		errs = append(errs, config.CheckAddress(fmt.Sprintf("registry.gateway_addresses[%d]", i), address))
	}
	return errors.Join(errs...)
}

func (s Settings) validateKV() error {
	return errors.Join(
		config.Between("registry.max_value_bytes", s.MaxValueBytes, leastValueBytes, mostValueBytes, ""),
		config.Between("registry.max_txn_operations", s.MaxTxnOperations, 1, mostTxnOperations, ""),
		config.Between("registry.max_txn_bytes", s.MaxTxnBytes, s.MaxValueBytes+leastValueBytes, mostTxnBytes,
			"let it hold one value of registry.max_value_bytes at least"),
	)
}

func (l Lease) validate() error {
	return errors.Join(
		config.AtLeast("registry.lease.min_ttl", l.MinTTL, leastTTL, "a lease has to outlast a slow network"),
		config.AtLeast("registry.lease.max_ttl", l.MaxTTL, l.MinTTL, "let it be registry.lease.min_ttl or more"),
		config.Between("registry.lease.lock_delay", l.LockDelay, 0, time.Minute, ""),
	)
}

func (s Settings) validateServers() error {
	var errs []error
	seen, own := map[string]bool{}, false
	for i, server := range s.Servers {
		field := fmt.Sprintf("registry.servers[%d]", i)
		if server.ID == "" || seen[server.ID] {
			errs = append(errs, fault.Invalid(field+".id", "%q is empty or there twice", server.ID).WithRemedy("give every server a name of its own"))
		}
		seen[server.ID] = true
		own = own || server.ID == s.ID
		errs = append(errs, config.CheckAddress(field+".raft_address", server.RaftAddress), config.CheckAddress(field+".address", server.Address))
	}
	if len(s.Servers) == 0 {
		return nil
	}
	if !own {
		errs = append(errs, fault.Invalid("registry.servers", "does not list this server, %q", s.ID).
			WithRemedy("set registry.id to the name this server has in the list, which is the same on all servers"))
	}
	if len(s.Servers)%2 == 0 || len(s.Servers) > mostServers {
		errs = append(errs, fault.Invalid("registry.servers", "lists %d servers", len(s.Servers)).WithRemedy("use 1, 3 or 5: an even number survives no more failures than one less"))
	}
	return errors.Join(errs...)
}

func (s Settings) validateJoin() error {
	errs := []error{config.CheckAddress("registry.advertise", s.Advertise)}
	for i, address := range s.Join {
		errs = append(errs, config.CheckAddress(fmt.Sprintf("registry.join[%d]", i), address))
	}
	e := s.BootstrapExpect
	if e < 0 || e > mostServers || e > 0 && e%2 == 0 {
		errs = append(errs, fault.Invalid("registry.bootstrap_expect", "is %d", e).
			WithRemedy("use 1, 3 or 5, the same on every server; or leave it out where a server joins a cluster that exists"))
	}
	if e > 1 && len(s.Servers) == 0 && len(s.Join) == 0 {
		errs = append(errs, fault.Invalid("registry.join", "is empty, and registry.bootstrap_expect is %d", e).
			WithRemedy("list the gRPC addresses of the other servers, such as 10.1.0.12:8502"))
	}
	if len(s.Servers) > 0 && e != len(s.Servers) {
		errs = append(errs, fault.Invalid("registry.bootstrap_expect", "is %d, and registry.servers lists %d", e, len(s.Servers)).
			WithRemedy("leave bootstrap_expect out, or use join instead of servers"))
	}
	for field, address := range map[string]string{"registry.advertise": s.Advertise, "registry.raft_advertise": s.RaftAdvertise} {
		host, _, err := net.SplitHostPort(address)
		if ip := net.ParseIP(host); err == nil && len(s.Join) > 0 && (host == "" || ip != nil && ip.IsUnspecified()) {
			errs = append(errs, fault.Invalid(field, "%q cannot be reached by other servers", address).WithRemedy("give the address of this machine"))
		}
	}
	return errors.Join(errs...)
}

// own is this server as the others are to reach it.
func (s Settings) own() Server {
	for _, server := range s.Servers {
		if server.ID == s.ID {
			return server
		}
	}
	return Server{ID: s.ID, RaftAddress: s.RaftAdvertise, Address: s.Advertise}
}

// others are the gRPC addresses to ask for the cluster.
func (s Settings) others() []string {
	out := slices.Clone(s.Join)
	for _, server := range s.Servers {
		if server.ID != s.ID {
			out = append(out, server.Address)
		}
	}
	return out
}

// addresses are the gRPC addresses of the servers that are known from the start.
func (s Settings) addresses() map[string]string {
	out := map[string]string{}
	for _, server := range s.Servers {
		out[server.ID] = server.Address
	}
	return out
}

func (c Catalog) times() catalog.Times {
	return catalog.Times{Dead: c.ReapAfter, Empty: c.EmptyNodeReapAfter}
}

func (c Catalog) validate() error {
	const least, most = 100 * time.Millisecond, 5000
	empty := cmp.Or(c.EmptyNodeReapAfter, least) // 0 keeps empty nodes.
	return errors.Join(
		config.AtLeast("registry.catalog.reap_after", c.ReapAfter, least, "use a time after which nobody expects the node back, such as 72h"),
		config.AtLeast("registry.catalog.empty_node_reap_after", empty, least, "use a time such as 72h, or 0 to keep empty nodes"),
		config.Between("registry.catalog.max_services_per_request", c.MaxServicesPerRequest, 1, most, ""),
	)
}

// deniedPath is the file of refusals that belongs to a file of changes.
func (a Audit) deniedPath(changes string) string {
	if a.DeniedPath != "" || changes == "-" {
		return cmp.Or(a.DeniedPath, changes)
	}
	extension := filepath.Ext(changes)
	return strings.TrimSuffix(changes, extension) + "-denied" + extension
}

func (a Audit) validate() error {
	errs := []error{
		config.AtLeast("registry.audit.max_bytes", a.MaxBytes, leastAuditBytes, "leave it out for 64 MiB"),
		config.AtLeast("registry.audit.keep", a.Keep, 1, "keep at least one file that was put aside"),
		config.AtLeast("registry.audit.denied_per_minute", a.DeniedPerMinute, 0, "use 0 to write all refusals"),
	}
	if a.Path != "" && a.Path != "-" && a.Path == a.DeniedPath {
		errs = append(errs, fault.Invalid("registry.audit.denied_path", "is registry.audit.path").WithRemedy("leave it out: refusals have a file of their own"))
	}
	return errors.Join(errs...)
}

func (r Raft) validate() error {
	const least = 50 * time.Millisecond
	errs := []error{
		config.AtLeast("registry.raft.heartbeat_timeout", r.HeartbeatTimeout, least, ""),
		config.AtLeast("registry.raft.election_timeout", r.ElectionTimeout, r.HeartbeatTimeout, "let it be heartbeat_timeout or more"),
		config.AtLeast("registry.raft.read_lease", r.ReadLease, 0, "0 has followers always ask the leader"),
		config.AtLeast("registry.raft.snapshot_threshold", r.SnapshotThreshold, 1, ""),
		config.AtLeast("registry.raft.snapshot_bytes", r.SnapshotBytes, leastSegment, ""),
		config.AtLeast("registry.raft.segment_bytes", r.SegmentBytes, leastSegment, ""),
		config.AtLeast("registry.raft.max_in_flight", r.MaxInFlight, 1, ""),
		config.AtLeast("registry.raft.max_in_flight_bytes", r.MaxInFlightBytes, leastSegment, ""),
	}
	if r.LeaderLease < least/2 || r.LeaderLease >= r.HeartbeatTimeout {
		errs = append(errs, fault.Invalid("registry.raft.leader_lease", "%v is not between %v and heartbeat_timeout, %v", r.LeaderLease, least/2, r.HeartbeatTimeout).
			WithRemedy("an old leader must stop answering before a new one is elected"))
	}
	return errors.Join(errs...)
}
