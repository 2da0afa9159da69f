package failoverrouter

import (
	"errors"
	"net"
	"strconv"
	"time"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
)

// Config is everything a failover-router is told.
type Config struct {
	config.Base    `koanf:",squash"`
	FailoverRouter Settings `koanf:"failover_router"`
}

// Settings is the `failover_router` section.
type Settings struct {
	// Listen is where Resolve is served over gRPC, host:port; the default is server.bind_addr with
	// port 8552.
	Listen string `koanf:"listen"`
	// ProxyListen is where applications of this host send plain HTTP, host:port; the default is
	// port 8553 of server.bind_addr if that is loopback or ProxyAllowRemote is set, else of
	// 127.0.0.1.
	ProxyListen string `koanf:"proxy_listen"`
	// ProxyAllowRemote allows ProxyListen to be other than loopback. The proxy asks nobody who they
	// are.
	ProxyAllowRemote bool `koanf:"proxy_allow_remote"`
	// RemoteTimeout bounds the question to one datacenter; one that gossip has lost gets a quarter
	// of it.
	RemoteTimeout time.Duration `koanf:"remote_timeout"`
	// CacheTTL is how long an answer about another datacenter is used again.
	CacheTTL time.Duration `koanf:"cache_ttl"`
	// ProxyCacheTTL is how long the proxy uses an answer about the own datacenter again.
	ProxyCacheTTL time.Duration `koanf:"proxy_cache_ttl"`
	// Lease is how long the last answer stands in for a datacenter that cannot be asked.
	Lease time.Duration `koanf:"lease"`
	// ProxyDialTimeout bounds a connection to an instance or gateway.
	ProxyDialTimeout time.Duration `koanf:"proxy_dial_timeout"`
	// ProxyResponseTimeout bounds the wait for the header of an instance's response.
	ProxyResponseTimeout time.Duration `koanf:"proxy_response_timeout"`
	// ProxyEjection is how long an instance that failed is not used.
	ProxyEjection time.Duration `koanf:"proxy_ejection"`
	// ProxyMaxConnections bounds the connections of applications to the proxy. They get fewer if
	// the process may not open enough files: an eighth of these. Of those that have not sent a
	// request yet, one more closes the oldest.
	ProxyMaxConnections int `koanf:"proxy_max_connections"`
	// ProxyMaxHops is how many proxies of Konsul a request may pass, so that it cannot go round for
	// ever.
	ProxyMaxHops int `koanf:"proxy_max_hops"`
	// MaxRetries is how often the proxy tries a request again.
	MaxRetries int `koanf:"max_retries"`
}

const mostRetries = 10

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Base: config.DefaultBase(),
		FailoverRouter: Settings{
			RemoteTimeout:        2 * time.Second,
			CacheTTL:             time.Second,
			ProxyCacheTTL:        250 * time.Millisecond,
			Lease:                30 * time.Second,
			ProxyDialTimeout:     time.Second,
			ProxyResponseTimeout: 30 * time.Second,
			ProxyEjection:        5 * time.Second,
			ProxyMaxConnections:  4096,
			ProxyMaxHops:         10,
			MaxRetries:           3,
		},
	}
}

// Normalize fills what follows from other settings.
func (c *Config) Normalize() {
	c.Base.Normalize()
	s := &c.FailoverRouter
	if s.Listen == "" {
		s.Listen = c.Listen(config.PortFailoverRouter)
	}
	if s.ProxyListen == "" {
		s.ProxyListen = c.Listen(config.PortProxy)
		if !loopback(s.ProxyListen) && !s.ProxyAllowRemote {
			s.ProxyListen = net.JoinHostPort("127.0.0.1", strconv.Itoa(config.PortProxy))
		}
	}
}

// Validate reports every problem at once.
func (c *Config) Validate() error {
	s := c.FailoverRouter
	errs := []error{
		c.Base.Validate(),
		config.CheckAddress("failover_router.listen", s.Listen),
		config.CheckAddress("failover_router.proxy_listen", s.ProxyListen),
	}
	for _, d := range []struct {
		field string
		value time.Duration
		least time.Duration
	}{
		{"failover_router.remote_timeout", s.RemoteTimeout, time.Millisecond},
		{"failover_router.cache_ttl", s.CacheTTL, 0},
		{"failover_router.proxy_cache_ttl", s.ProxyCacheTTL, 0},
		{"failover_router.lease", s.Lease, 0},
		{"failover_router.proxy_dial_timeout", s.ProxyDialTimeout, time.Millisecond},
		{"failover_router.proxy_response_timeout", s.ProxyResponseTimeout, time.Millisecond},
		{"failover_router.proxy_ejection", s.ProxyEjection, 0},
	} {
		if d.value < d.least {
			errs = append(errs, fault.Invalid(d.field, "%s is less than %s", d.value, d.least).WithRemedy("write a duration such as 2s"))
		}
	}
	if s.ProxyMaxConnections < 1 {
		errs = append(errs, fault.Invalid("failover_router.proxy_max_connections", "%d is not positive", s.ProxyMaxConnections).
			WithRemedy("leave it out for the default, 4096"))
	}
	if s.ProxyMaxHops < 1 {
		errs = append(errs, fault.Invalid("failover_router.proxy_max_hops", "%d is not positive", s.ProxyMaxHops).WithRemedy("leave it out for the default, 10"))
	}
	if s.MaxRetries < 0 || s.MaxRetries > mostRetries {
		errs = append(errs, fault.Invalid("failover_router.max_retries", "%d is not from 0 to %d", s.MaxRetries, mostRetries).WithRemedy("leave it out for the default, 3"))
	}
	if !s.ProxyAllowRemote && !loopback(s.ProxyListen) {
		errs = append(errs, fault.Invalid("failover_router.proxy_listen", "%s is not on loopback, and the proxy takes plain HTTP from anybody", s.ProxyListen).
			WithRemedy("bind it to 127.0.0.1, or set failover_router.proxy_allow_remote: true where only trusted applications can reach it"))
	}
	return errors.Join(errs...)
}

func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
