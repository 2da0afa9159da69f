package gateway

import (
	"errors"
	"net"
	"regexp"
	"strconv"
	"time"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
)

// Config is everything a gateway is told.
type Config struct {
	config.Base `koanf:",squash"`
	Gateway     Settings `koanf:"gateway"`
}

// Settings is the `gateway` section.
type Settings struct {
	// Listen is where other datacenters and the own services connect, host:port; the default is
	// server.bind_addr with port 8443.
	Listen string `koanf:"listen"`
	// HTTPListen is where people connect, REST and gRPC over TLS; the default is server.bind_addr
	// with port 8500.
	HTTPListen string `koanf:"http_listen"`
	// WANAddress is what other datacenters dial to reach Listen, host:port.
	WANAddress string `koanf:"wan_address"`
	// TLSEnabled must be true: there is no plaintext mode.
	TLSEnabled bool `koanf:"tls_enabled"`
	// HTTPSANs are further DNS names and IP addresses by which people reach HTTPListen.
	HTTPSANs []string `koanf:"http_sans"`
	// HandshakeTimeout is how long a client may take to say whom it wants, and to prove who it is.
	HandshakeTimeout time.Duration `koanf:"handshake_timeout"`
	// DialTimeout bounds one try to reach one address.
	DialTimeout time.Duration `koanf:"dial_timeout"`
	// IdleTimeout is how long a connection may carry nothing.
	IdleTimeout time.Duration `koanf:"idle_timeout"`
	// HalfCloseTimeout is how long the rest of a connection may carry nothing once one end has
	// closed.
	HalfCloseTimeout time.Duration `koanf:"half_close_timeout"`
	// MaxConnections bounds the connections on each of the two ports. A port gets fewer if the
	// process may not open enough files: Listen half of them, at two for a connection, HTTPListen
	// an eighth.
	MaxConnections int `koanf:"max_connections"`
	// MaxConnectionsPerSource bounds those of one IPv4 address or IPv6 network of 64 bits, on each
	// port; 0: half of them all.
	MaxConnectionsPerSource int `koanf:"max_connections_per_source"`
	// MaxHalfOpen bounds the connections on each port whose client has not yet said what it wants;
	// one more closes the oldest. At most a quarter of all connections.
	MaxHalfOpen int `koanf:"max_half_open"`
	// MaxHalfOpenPerSource is the same for one source.
	MaxHalfOpenPerSource int `koanf:"max_half_open_per_source"`
	// DrainTimeout is how long connections may go on once the gateway stops.
	DrainTimeout time.Duration `koanf:"drain_timeout"`
	// IntrospectCacheTTL is how long a token is believed without asking the registry again.
	IntrospectCacheTTL time.Duration `koanf:"introspect_cache_ttl"`
	// MaxRequestBytes bounds a request body and a gRPC message from a client.
	MaxRequestBytes int64 `koanf:"max_request_bytes"`
	// MaxInflightBytes bounds, in bytes, the requests of clients that are held at once; the calls
	// of one token have a quarter of it.
	MaxInflightBytes int64 `koanf:"max_inflight_bytes"`
	// RequestReadTimeout is how long a request body, or a gRPC message that has begun, may take to
	// arrive.
	RequestReadTimeout time.Duration `koanf:"request_read_timeout"`
	// MaxConcurrentStreams bounds the calls at once on one connection of a client; a client that
	// wants more waits.
	MaxConcurrentStreams int `koanf:"max_concurrent_streams"`
	// MaxHeaderBytes bounds the headers of a client's call, in bytes.
	MaxHeaderBytes int `koanf:"max_header_bytes"`
}

const (
	defaultMaxConnections  = 8192
	defaultMaxRequestBytes = 4 << 20
	leastMaxRequestBytes   = 1 << 10
	mostMaxRequestBytes    = 64 << 20
	mostIntrospectCache    = 5 * time.Second
	leastInflightBytes     = 16 << 20
	leastStreams           = 10
	mostStreams            = 1 << 16
	leastHeaderBytes       = 8 << 10
	mostHeaderBytes        = 1 << 20
)

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Base: config.DefaultBase(),
		Gateway: Settings{
			TLSEnabled:           true,
			HandshakeTimeout:     5 * time.Second,
			DialTimeout:          3 * time.Second,
			IdleTimeout:          10 * time.Minute,
			HalfCloseTimeout:     30 * time.Second,
			MaxConnections:       defaultMaxConnections,
			MaxHalfOpen:          1024,
			MaxHalfOpenPerSource: 256,
			DrainTimeout:         5 * time.Second,
			IntrospectCacheTTL:   3 * time.Second,
			MaxRequestBytes:      defaultMaxRequestBytes,
			MaxInflightBytes:     256 << 20,
			RequestReadTimeout:   30 * time.Second,
			MaxConcurrentStreams: 250,
			MaxHeaderBytes:       64 << 10,
		},
	}
}

// EnvAliases returns the environment variables of ADR-0027's Kubernetes manifest.
func (*Config) EnvAliases() map[string]string {
	return map[string]string{
		"DATACENTER":  "server.datacenter",
		"WAN_ADDRESS": "gateway.wan_address",
		"TLS_ENABLED": "gateway.tls_enabled",
	}
}

// Normalize fills what follows from other settings.
func (c *Config) Normalize() {
	c.Base.Normalize()
	s := &c.Gateway
	if s.Listen == "" {
		s.Listen = c.Listen(config.PortGateway)
	}
	if s.HTTPListen == "" {
		s.HTTPListen = c.Listen(config.PortHTTP)
	}
	if s.WANAddress == "" {
		s.WANAddress = c.wanAddress()
	}
}

// wanAddress returns the gateway's address on the host by which other datacenters reach this one's
// gossip.
func (c *Config) wanAddress() string {
	host, _, err := net.SplitHostPort(c.Server.WAN.AdvertiseAddr)
	if err != nil {
		return c.Gateway.Listen
	}
	_, port, err := net.SplitHostPort(c.Gateway.Listen)
	if err != nil {
		port = strconv.Itoa(config.PortGateway)
	}
	return net.JoinHostPort(host, port)
}

var dnsName = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

// Validate reports every problem at once.
func (c *Config) Validate() error {
	s := c.Gateway
	errs := []error{
		c.Base.Validate(),
		config.CheckAddress("gateway.listen", s.Listen),
		config.CheckAddress("gateway.http_listen", s.HTTPListen),
		config.CheckAddress("gateway.wan_address", s.WANAddress),
	}
	if !s.TLSEnabled {
		errs = append(errs, fault.Invalid("gateway.tls_enabled", "there is no plaintext mode").WithRemedy("remove it, or set it to true (TLS_ENABLED in the environment)"))
	}
	for i, name := range s.HTTPSANs {
		if net.ParseIP(name) == nil && !dnsName.MatchString(name) {
			errs = append(errs, fault.Invalid("gateway.http_sans["+strconv.Itoa(i)+"]", "%q is neither a DNS name nor an IP address", name).
				WithRemedy("write a name such as konsul.example.com, without scheme and port"))
		}
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{
		{"gateway.handshake_timeout", s.HandshakeTimeout},
		{"gateway.dial_timeout", s.DialTimeout},
		{"gateway.idle_timeout", s.IdleTimeout},
		{"gateway.half_close_timeout", s.HalfCloseTimeout},
		{"gateway.request_read_timeout", s.RequestReadTimeout},
		{"gateway.introspect_cache_ttl", s.IntrospectCacheTTL},
	} {
		if d.value <= 0 {
			errs = append(errs, fault.Invalid(d.field, "%s is not positive", d.value).WithRemedy("write a duration such as 5s"))
		}
	}
	if s.DrainTimeout < 0 {
		errs = append(errs, fault.Invalid("gateway.drain_timeout", "%s is negative", s.DrainTimeout).WithRemedy("write a duration such as 5s; 0 cuts connections at once"))
	}
	if s.IntrospectCacheTTL > mostIntrospectCache {
		errs = append(errs, fault.Invalid("gateway.introspect_cache_ttl", "%s is more than %s", s.IntrospectCacheTTL, mostIntrospectCache).
			WithRemedy("a revoked token must stop working soon; leave it out for the default"))
	}
	for _, n := range []struct {
		field     string
		value     int
		byDefault string
	}{
		{"gateway.max_connections", s.MaxConnections, "8192"},
		{"gateway.max_half_open", s.MaxHalfOpen, "1024"},
		{"gateway.max_half_open_per_source", s.MaxHalfOpenPerSource, "256"},
	} {
		if n.value < 1 {
			errs = append(errs, fault.Invalid(n.field, "%d is not positive", n.value).WithRemedy("leave it out for the default, "+n.byDefault))
		}
	}
	if s.MaxConnectionsPerSource < 0 {
		errs = append(errs, fault.Invalid("gateway.max_connections_per_source", "%d is negative", s.MaxConnectionsPerSource).
			WithRemedy("leave it out for the default, half of all connections"))
	}
	if s.MaxRequestBytes < leastMaxRequestBytes || s.MaxRequestBytes > mostMaxRequestBytes {
		errs = append(errs, fault.Invalid("gateway.max_request_bytes", "%d is not from %d to %d", s.MaxRequestBytes, leastMaxRequestBytes, mostMaxRequestBytes).
			WithRemedy("leave it out for the default, 4194304"))
	}
	if s.MaxInflightBytes < s.MaxRequestBytes || s.MaxInflightBytes < leastInflightBytes {
		errs = append(errs, fault.Invalid("gateway.max_inflight_bytes", "%d is less than gateway.max_request_bytes, or than %d", s.MaxInflightBytes, leastInflightBytes).
			WithRemedy("leave it out for the default, 268435456"))
	}
	if s.MaxConcurrentStreams < leastStreams || s.MaxConcurrentStreams > mostStreams {
		errs = append(errs, fault.Invalid("gateway.max_concurrent_streams", "%d is not from %d to %d", s.MaxConcurrentStreams, leastStreams, mostStreams).
			WithRemedy("leave it out for the default, 250"))
	}
	if s.MaxHeaderBytes < leastHeaderBytes || s.MaxHeaderBytes > mostHeaderBytes {
		errs = append(errs, fault.Invalid("gateway.max_header_bytes", "%d is not from %d to %d", s.MaxHeaderBytes, leastHeaderBytes, mostHeaderBytes).
			WithRemedy("leave it out for the default, 65536"))
	}
	return errors.Join(errs...)
}

// names returns what the edge's certificate is asked to carry: every host by which this
// configuration calls the gateway.
func (c *Config) names() (dns []string, ips []net.IP) {
	hosts := []string{"localhost", "127.0.0.1"}
	for _, address := range append([]string{c.Gateway.Listen, c.Gateway.HTTPListen, c.Gateway.WANAddress}, c.Endpoints.Gateway...) {
		if host, _, err := net.SplitHostPort(address); err == nil {
			hosts = append(hosts, host)
		}
	}
	seen := map[string]bool{}
	for _, host := range append(hosts, c.Gateway.HTTPSANs...) {
		if seen[host] {
			continue
		}
		seen[host] = true
		if ip := net.ParseIP(host); ip != nil {
			if !ip.IsUnspecified() {
				ips = append(ips, ip)
			}
		} else if dnsName.MatchString(host) {
			dns = append(dns, host)
		}
	}
	return dns, ips
}
