package wangossip

import (
	"errors"
	"net"
	"time"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
)

// Config is everything wan-gossip is told. Where it listens for gossip, what it advertises and whom
// it joins is in the shared section server.wan, as ADR-0027 has it.
type Config struct {
	config.Base `koanf:",squash"`
	WANGossip   Settings `koanf:"wan_gossip"`
}

// Settings is the `wan_gossip` section.
type Settings struct {
	// Listen is where the list of datacenters is served over gRPC, host:port; the default is
	// server.bind_addr with port 8512.
	Listen string `koanf:"listen"`
	// GatewayAddresses are where other datacenters reach this one's gateways; the default is the
	// advertised gossip host with port 8443.
	GatewayAddresses []string `koanf:"gateway_addresses"`
	// ProbeInterval is how often round trips are measured.
	ProbeInterval time.Duration `koanf:"probe_interval"`
	// RetryMin and RetryMax bound the waits between tries to join.
	RetryMin time.Duration `koanf:"retry_min"`
	RetryMax time.Duration `koanf:"retry_max"`
	// KeyRefresh is how often the ca is asked for new gossip keys.
	KeyRefresh time.Duration `koanf:"key_refresh"`
	// LeaveTimeout bounds the farewell at a stop.
	LeaveTimeout time.Duration `koanf:"leave_timeout"`
	// MaxStreams bounds the gossip exchanges over TCP at a time, members' and strangers': nobody
	// can tell them apart before the end. One more ends the oldest of whoever has most.
	MaxStreams int `koanf:"max_streams"`
	// MaxStreamsPerSource is the same for one IPv4 address or IPv6 network of 64 bits.
	MaxStreamsPerSource int `koanf:"max_streams_per_source"`
	// MaxStreamBytes bounds one exchange: the list of all members, at less than 1 KiB for each.
	MaxStreamBytes int64 `koanf:"max_stream_bytes"`
	// Detection is how fast the pool notices things; all datacenters should agree on it.
	Detection Detection `koanf:"detection"`
}

// Detection is the `wan_gossip.detection` section. The defaults are memberlist's for a WAN, but
// notice a dead datacenter within about ten seconds.
type Detection struct {
	// ProbeInterval is how often one other member is probed.
	ProbeInterval time.Duration `koanf:"probe_interval"`
	// ProbeTimeout is how long a probe waits before other members are asked to probe.
	ProbeTimeout time.Duration `koanf:"probe_timeout"`
	// SuspicionMult times ProbeInterval is how long a silent member may defend itself.
	SuspicionMult int `koanf:"suspicion_mult"`
	// SuspicionMaxMult is how many times longer it may while nobody confirms the suspicion.
	SuspicionMaxMult int `koanf:"suspicion_max_mult"`
	// GossipInterval is how often news is sent to some members.
	GossipInterval time.Duration `koanf:"gossip_interval"`
	// PushPullInterval is how often all that is known is exchanged with one member.
	PushPullInterval time.Duration `koanf:"push_pull_interval"`
	// ReconnectInterval is how often a failed member is tried.
	ReconnectInterval time.Duration `koanf:"reconnect_interval"`
	// ReconnectTimeout is how long a failed member is remembered.
	ReconnectTimeout time.Duration `koanf:"reconnect_timeout"`
	// TombstoneTimeout is how long a member that left is remembered.
	TombstoneTimeout time.Duration `koanf:"tombstone_timeout"`
	// StreamTimeout bounds the dial, and each read and write, of an exchange over TCP.
	StreamTimeout time.Duration `koanf:"stream_timeout"`
}

const (
	defaultMaxStreams          = 32
	defaultMaxStreamsPerSource = 8
	defaultMaxStreamBytes      = 1 << 20
	leastMaxStreamBytes        = 64 << 10
	mostMaxStreamBytes         = 16 << 20 // memberlist's own bound is 20 MiB
)

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Base: config.DefaultBase(),
		WANGossip: Settings{
			ProbeInterval:       time.Second,
			RetryMin:            250 * time.Millisecond,
			RetryMax:            10 * time.Second,
			KeyRefresh:          5 * time.Minute,
			LeaveTimeout:        5 * time.Second,
			MaxStreams:          defaultMaxStreams,
			MaxStreamsPerSource: defaultMaxStreamsPerSource,
			MaxStreamBytes:      defaultMaxStreamBytes,
			Detection: Detection{
				ProbeInterval:     time.Second,
				ProbeTimeout:      700 * time.Millisecond,
				SuspicionMult:     4,
				SuspicionMaxMult:  2,
				GossipInterval:    200 * time.Millisecond,
				PushPullInterval:  30 * time.Second,
				ReconnectInterval: 5 * time.Second,
				ReconnectTimeout:  72 * time.Hour,
				TombstoneTimeout:  24 * time.Hour,
				StreamTimeout:     5 * time.Second,
			},
		},
	}
}

// Normalize fills what follows from other settings.
func (c *Config) Normalize() {
	c.Base.Normalize()
	if c.WANGossip.Listen == "" {
		c.WANGossip.Listen = c.Listen(config.PortWANGossipGRPC)
	}
}

// Validate reports every problem at once.
func (c *Config) Validate() error {
	s, d := c.WANGossip, c.WANGossip.Detection
	errs := []error{c.Base.Validate(), config.CheckAddress("wan_gossip.listen", s.Listen)}
	for _, address := range s.GatewayAddresses {
		errs = append(errs, config.CheckAddress("wan_gossip.gateway_addresses", address))
	}
	for _, e := range []struct {
		field string
		value time.Duration
	}{
		{"wan_gossip.probe_interval", s.ProbeInterval},
		{"wan_gossip.retry_min", s.RetryMin},
		{"wan_gossip.retry_max", s.RetryMax},
		{"wan_gossip.key_refresh", s.KeyRefresh},
		{"wan_gossip.leave_timeout", s.LeaveTimeout},
		{"wan_gossip.detection.probe_interval", d.ProbeInterval},
		{"wan_gossip.detection.probe_timeout", d.ProbeTimeout},
		{"wan_gossip.detection.gossip_interval", d.GossipInterval},
		{"wan_gossip.detection.push_pull_interval", d.PushPullInterval},
		{"wan_gossip.detection.reconnect_interval", d.ReconnectInterval},
		{"wan_gossip.detection.reconnect_timeout", d.ReconnectTimeout},
		{"wan_gossip.detection.tombstone_timeout", d.TombstoneTimeout},
		{"wan_gossip.detection.stream_timeout", d.StreamTimeout},
	} {
		if e.value <= 0 {
			errs = append(errs, fault.Invalid(e.field, "%s is not positive", e.value).WithRemedy("write a duration such as 10s"))
		}
	}
	if wan := c.Server.WAN; wan.Enabled && wan.AdvertiseAddr == "" {
		if host, _, err := net.SplitHostPort(wan.BindAddr); err == nil && (host == "" || net.ParseIP(host).IsUnspecified()) {
			errs = append(errs, fault.Invalid("server.wan.advertise_addr", "is empty while server.wan.bind_addr (%s) names no address that others could use", wan.BindAddr).
				WithRemedy("write host:port as other datacenters reach this one"))
		}
	}
	if s.RetryMin > s.RetryMax {
		errs = append(errs, fault.Invalid("wan_gossip.retry_min", "%s is more than wan_gossip.retry_max (%s)", s.RetryMin, s.RetryMax).WithRemedy("lower it"))
	}
	if d.ProbeTimeout >= d.ProbeInterval {
		errs = append(errs, fault.Invalid("wan_gossip.detection.probe_timeout", "%s is not less than wan_gossip.detection.probe_interval (%s)", d.ProbeTimeout, d.ProbeInterval).
			WithRemedy("a probe must end, by way of another member too, before the next begins"))
	}
	if s.MaxStreamBytes < leastMaxStreamBytes || s.MaxStreamBytes > mostMaxStreamBytes {
		errs = append(errs, fault.Invalid("wan_gossip.max_stream_bytes", "%d is not from %d to %d", s.MaxStreamBytes, leastMaxStreamBytes, mostMaxStreamBytes).
			WithRemedy("leave it out for the default, 1048576"))
	}
	for field, value := range map[string]int{
		"wan_gossip.max_streams": s.MaxStreams, "wan_gossip.max_streams_per_source": s.MaxStreamsPerSource,
		"wan_gossip.detection.suspicion_mult": d.SuspicionMult, "wan_gossip.detection.suspicion_max_mult": d.SuspicionMaxMult,
	} {
		if value < 1 {
			errs = append(errs, fault.Invalid(field, "%d is less than 1", value).WithRemedy("leave it out for the default"))
		}
	}
	return errors.Join(errs...)
}
