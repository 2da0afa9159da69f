// Package registry is the front door of the registry service: the only service that keeps state. It
// runs one server of a datacenter's Raft cluster, serves the catalogue, the key-value store, watches
// and the federation record over gRPC, and passes calls on to its leader and to other datacenters.
//
// New, Start and Stop are the service in plain Go; Module is the same for fx.
package registry

import (
	"errors"
	"fmt"
	"time"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
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
	// Servers is the whole cluster, the same on every server; empty: this server alone.
	Servers []Server `koanf:"servers"`
	// MaxValueBytes bounds a KV value.
	MaxValueBytes int `koanf:"max_value_bytes"`
	// InitialManagementTokenFile holds a token that may do everything; used in the primary.
	InitialManagementTokenFile string `koanf:"initial_management_token_file"`
	// GatewayAddresses is where other datacenters reach this one's gateways; default: server.bind_addr with port 8443.
	GatewayAddresses []string `koanf:"gateway_addresses"`
	Raft             Raft     `koanf:"raft"`
}

// Server is one server of the cluster.
type Server struct {
	ID string `koanf:"id"`
	// RaftAddress is its Raft listener, host:port.
	RaftAddress string `koanf:"raft_address"`
	// Address is its gRPC listener, host:port.
	Address string `koanf:"address"`
}

// Raft is the `registry.raft` section.
type Raft struct {
	// HeartbeatTimeout is how long a follower goes without its leader before it asks for an election.
	HeartbeatTimeout time.Duration `koanf:"heartbeat_timeout"`
	// ElectionTimeout is how long a candidate waits for votes.
	ElectionTimeout time.Duration `koanf:"election_timeout"`
	// LeaderLease is how long a leader goes without a majority before it steps down.
	LeaderLease time.Duration `koanf:"leader_lease"`
	// SnapshotThreshold is how many log entries make a snapshot worth while.
	SnapshotThreshold uint64 `koanf:"snapshot_threshold"`
	// TrailingLogs is how many entries are kept behind a snapshot, for followers that lag.
	TrailingLogs uint64 `koanf:"trailing_logs"`
	// SegmentBytes is the size of a log segment.
	SegmentBytes int `koanf:"segment_bytes"`
	// MaxInFlight bounds the writes that wait for their outcome; more are refused.
	MaxInFlight int `koanf:"max_in_flight"`
}

// DefaultConfig is a datacenter of one server on loopback.
func DefaultConfig() Config {
	timing := raftnode.DefaultTiming()
	return Config{
		Base: config.DefaultBase(),
		Registry: Settings{
			MaxValueBytes: 512 << 10,
			Raft: Raft{
				HeartbeatTimeout: timing.Heartbeat, ElectionTimeout: timing.Election, LeaderLease: timing.Lease,
				SnapshotThreshold: 64 << 10, TrailingLogs: 32 << 10, SegmentBytes: 32 << 20, MaxInFlight: 8 << 10,
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
	if len(r.Servers) == 0 {
		r.Servers = []Server{{ID: r.ID, RaftAddress: r.RaftAdvertise, Address: r.Listen}}
	}
	if len(r.GatewayAddresses) == 0 {
		r.GatewayAddresses = []string{c.Listen(config.PortGateway)}
	}
}

// limits of settings.
const (
	leastValueBytes = 1 << 10
	mostValueBytes  = 1 << 20 // more would not fit beside its frame into Badger's tree and gRPC's messages
	leastSegment    = 1 << 20
	mostServers     = 7
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
		r.Raft.validate(),
	}
	for i, address := range r.GatewayAddresses {
		errs = append(errs, config.CheckAddress(fmt.Sprintf("registry.gateway_addresses[%d]", i), address))
	}
	if r.MaxValueBytes < leastValueBytes || r.MaxValueBytes > mostValueBytes {
		errs = append(errs, fault.Invalid("registry.max_value_bytes", "%d is not between %d and %d", r.MaxValueBytes, leastValueBytes, mostValueBytes))
	}
	return errors.Join(errs...)
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
	if !own {
		errs = append(errs, fault.Invalid("registry.servers", "does not list this server, %q", s.ID).
			WithRemedy("set registry.id to the name this server has in the list, which is the same on all servers"))
	}
	if len(s.Servers)%2 == 0 || len(s.Servers) > mostServers {
		errs = append(errs, fault.Invalid("registry.servers", "lists %d servers", len(s.Servers)).WithRemedy("use 1, 3 or 5: an even number survives no more failures than one less"))
	}
	return errors.Join(errs...)
}

func (r Raft) validate() error {
	var errs []error
	const least = 50 * time.Millisecond
	if r.HeartbeatTimeout < least {
		errs = append(errs, fault.Invalid("registry.raft.heartbeat_timeout", "%v is less than %v", r.HeartbeatTimeout, least))
	}
	if r.ElectionTimeout < r.HeartbeatTimeout {
		errs = append(errs, fault.Invalid("registry.raft.election_timeout", "%v is less than heartbeat_timeout, %v", r.ElectionTimeout, r.HeartbeatTimeout))
	}
	if r.LeaderLease < least/2 || r.LeaderLease >= r.HeartbeatTimeout {
		errs = append(errs, fault.Invalid("registry.raft.leader_lease", "%v is not between %v and heartbeat_timeout, %v", r.LeaderLease, least/2, r.HeartbeatTimeout).
			WithRemedy("an old leader must stop answering before a new one is elected"))
	}
	if r.SnapshotThreshold == 0 {
		errs = append(errs, fault.Invalid("registry.raft.snapshot_threshold", "is 0"))
	}
	if r.SegmentBytes < leastSegment {
		errs = append(errs, fault.Invalid("registry.raft.segment_bytes", "%d is less than %d", r.SegmentBytes, leastSegment))
	}
	if r.MaxInFlight < 1 {
		errs = append(errs, fault.Invalid("registry.raft.max_in_flight", "is %d", r.MaxInFlight))
	}
	return errors.Join(errs...)
}
