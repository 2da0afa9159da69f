package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/host"
	"konsul.dev/services/agent/internal/definitions"
)

// Config is everything an agent is told.
type Config struct {
	config.Base `koanf:",squash"`
	Agent       Settings `koanf:"agent"`
}

// Settings is the `agent` section.
type Settings struct {
	// Listen is where the local API is served, host:port; the default is server.bind_addr with port
	// 8562.
	Listen string `koanf:"listen"`
	// ServicesDir holds the service definitions of this node, in *.yaml, *.yml and *.json files;
	// any other file is named in the log. Empty: the node has no services.
	ServicesDir string `koanf:"services_dir"`
	// NodeAddress is where other machines reach this node, a host or IP without port. The default
	// is server.bind_addr or, when that is all interfaces, the node's name.
	NodeAddress string `koanf:"node_address"`
	// SyncInterval is the longest time between two full comparisons with the registry.
	SyncInterval time.Duration `koanf:"sync_interval"`
	// ReloadInterval is how often services_dir is read.
	ReloadInterval time.Duration `koanf:"reload_interval"`
	// CheckConcurrency is how many checks run at once.
	CheckConcurrency int `koanf:"check_concurrency"`
	// CallTimeout bounds one step with the registry.
	CallTimeout time.Duration `koanf:"call_timeout"`
	// RetryMin and RetryMax bound the waits after a failure.
	RetryMin time.Duration `koanf:"retry_min"`
	RetryMax time.Duration `koanf:"retry_max"`
	// LivenessTTL is how long the registry waits for a heartbeat of this node before it takes it
	// for dead; a heartbeat goes every third of it. 0: nobody expects heartbeats.
	LivenessTTL time.Duration `koanf:"liveness_ttl"`
	// LeaveOnStop deregisters this node with its services when the agent stops: for machines that
	// do not come back.
	LeaveOnStop bool `koanf:"leave_on_stop"`
}

const (
	maxConcurrency = 1000
	// The registry takes no more than maxLivenessTTL; below minLivenessTTL a pause of the machine
	// would be a death.
	minLivenessTTL = time.Second
	maxLivenessTTL = 24 * time.Hour
)

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Base: config.DefaultBase(),
		Agent: Settings{
			SyncInterval:     time.Minute,
			ReloadInterval:   time.Second,
			CheckConcurrency: 16,
			CallTimeout:      10 * time.Second,
			RetryMin:         250 * time.Millisecond,
			RetryMax:         2 * time.Second,
			LivenessTTL:      30 * time.Second,
		},
	}
}

// Normalize fills what follows from other settings.
func (c *Config) Normalize() {
	c.Base.Normalize()
	if c.Agent.Listen == "" {
		c.Agent.Listen = c.Listen(config.PortAgent)
	}
	if c.Agent.NodeAddress == "" {
		c.Agent.NodeAddress = c.Server.BindAddr
		if ip := net.ParseIP(c.Server.BindAddr); ip != nil && ip.IsUnspecified() {
			c.Agent.NodeAddress = c.Server.Node
		}
	}
}

// Validate reports every problem of the configuration at once. It does not look at the definitions:
// a mistake in one of them must not keep the others from being registered.
func (c *Config) Validate() error {
	s := c.Agent
	errs := []error{c.Base.Validate(), config.CheckAddress("agent.listen", s.Listen)}
	for _, d := range []struct {
		field string
		value time.Duration
	}{
		{"agent.sync_interval", s.SyncInterval},
		{"agent.reload_interval", s.ReloadInterval},
		{"agent.call_timeout", s.CallTimeout},
		{"agent.retry_min", s.RetryMin},
		{"agent.retry_max", s.RetryMax},
	} {
		if d.value <= 0 {
			errs = append(errs, fault.Invalid(d.field, "%s is not positive", d.value).WithRemedy("write a duration such as 10s"))
		}
	}
	if s.RetryMin > s.RetryMax {
		errs = append(errs, fault.Invalid("agent.retry_min", "%s is more than agent.retry_max (%s)", s.RetryMin, s.RetryMax).WithRemedy("lower it"))
	}
	if s.CheckConcurrency < 1 || s.CheckConcurrency > maxConcurrency {
		errs = append(errs, fault.Invalid("agent.check_concurrency", "%d is not from 1 to %d", s.CheckConcurrency, maxConcurrency).
			WithRemedy("leave it out for the default, 16"))
	}
	if ttl := s.LivenessTTL; ttl != 0 && (ttl < minLivenessTTL || ttl > maxLivenessTTL) {
		errs = append(errs, fault.Invalid("agent.liveness_ttl", "%s is not from %s to %s", ttl, minLivenessTTL, maxLivenessTTL).
			WithRemedy("leave it out for the default, 30s; 0 sends no heartbeats"))
	}
	if _, _, err := net.SplitHostPort(s.NodeAddress); err == nil {
		errs = append(errs, fault.Invalid("agent.node_address", "%q has a port", s.NodeAddress).WithRemedy("write the host alone; services have ports"))
	} else if _, err := host.Parse(s.NodeAddress); err != nil {
		errs = append(errs, fault.Invalid("agent.node_address", "%q %v", s.NodeAddress, err).
			WithRemedy("write the host name or IP address under which other machines reach this node"))
	}
	return errors.Join(errs...)
}

// CheckConfig reads the definitions as `--check-config` asks, and reports every problem in them.
func (c *Config) CheckConfig() error {
	_, problems, _ := definitions.New(c.folder(), c.Server.Datacenter).Load()
	var errs []error
	for _, p := range problems {
		errs = append(errs, inFile(c.Agent.ServicesDir, p))
	}
	return errors.Join(errs...)
}

// ConfigNotes says what --check-config finds that is no mistake.
func (c *Config) ConfigNotes() []string {
	set, _, _ := definitions.New(c.folder(), c.Server.Datacenter).Load()
	if len(set.Ignored) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("agent.services_dir %s: %d not read, as definitions are *.yaml, *.yml and *.json: %s",
		c.Agent.ServicesDir, len(set.Ignored), strings.Join(someOf(set.Ignored), ", "))}
}

// inFile names the file in each of a problem's faults.
func inFile(dir string, p definitions.Problem) error {
	place := "agent.services_dir " + dir
	if p.File != "." {
		place = p.File
	}
	var joined interface{ Unwrap() []error }
	if !errors.As(p.Err, &joined) {
		return within(place, p.Err)
	}
	var errs []error
	for _, err := range joined.Unwrap() {
		errs = append(errs, within(place, err))
	}
	return errors.Join(errs...)
}

func within(place string, err error) error {
	f, ok := fault.As(err)
	if !ok {
		return fmt.Errorf("%s: %w", place, err)
	}
	if f.Field() != "" {
		place += ": " + f.Field()
	}
	return f.WithField(place)
}

// folder returns services_dir, nil when there is none.
func (c *Config) folder() fs.FS {
	if c.Agent.ServicesDir == "" {
		return nil
	}
	return os.DirFS(c.Agent.ServicesDir)
}
