package replicator

import (
	"errors"
	"time"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
)

// Config is everything a replicator is told.
type Config struct {
	config.Base `koanf:",squash"`
	Replicator  Settings `koanf:"replicator"`
}

// Settings is the `replicator` section.
type Settings struct {
	// Listen is where status is served, host:port; the default is server.bind_addr with port 8522.
	Listen string `koanf:"listen"`
	// StreamTimeout is how long the source may be silent before the stream is opened anew.
	StreamTimeout time.Duration `koanf:"stream_timeout"`
	// Heartbeat is how often an idle source is asked to speak.
	Heartbeat time.Duration `koanf:"heartbeat"`
	// BatchMax is the most entries in one commit.
	BatchMax int `koanf:"batch_max"`
	// RetryMin and RetryMax bound the waits between tries, which double while tries fail.
	RetryMin time.Duration `koanf:"retry_min"`
	RetryMax time.Duration `koanf:"retry_max"`
	// CallTimeout bounds one call to the local registry.
	CallTimeout time.Duration `koanf:"call_timeout"`
	// PollInterval is how often the federation record is read for a change of primary.
	PollInterval time.Duration `koanf:"poll_interval"`
	// CursorInterval is how often the cursor is stored while the source has nothing new. The
	// registry computes the lag and the age of copies from what is stored, so they look older by up
	// to this much.
	CursorInterval time.Duration `koanf:"cursor_interval"`
}

const (
	batchBytes = 1 << 20
	maxBatch   = 10_000
	// A source refuses streams that are to be spoken on more or less often than this.
	minHeartbeat, maxHeartbeat = 100 * time.Millisecond, 10 * time.Minute
)

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Base: config.DefaultBase(),
		Replicator: Settings{
			StreamTimeout:  10 * time.Second,
			Heartbeat:      time.Second,
			BatchMax:       512,
			RetryMin:       250 * time.Millisecond,
			RetryMax:       2 * time.Second,
			CallTimeout:    10 * time.Second,
			PollInterval:   2 * time.Second,
			CursorInterval: 2 * time.Second,
		},
	}
}

// Normalize fills what follows from other settings.
func (c *Config) Normalize() {
	c.Base.Normalize()
	if c.Replicator.Listen == "" {
		c.Replicator.Listen = c.Listen(config.PortReplicator)
	}
}

// Validate reports every problem at once.
func (c *Config) Validate() error {
	s := c.Replicator
	errs := []error{c.Base.Validate(), config.CheckAddress("replicator.listen", s.Listen)}
	for _, d := range []struct {
		field string
		value time.Duration
	}{
		{"replicator.stream_timeout", s.StreamTimeout},
		{"replicator.heartbeat", s.Heartbeat},
		{"replicator.retry_min", s.RetryMin},
		{"replicator.retry_max", s.RetryMax},
		{"replicator.call_timeout", s.CallTimeout},
		{"replicator.poll_interval", s.PollInterval},
		{"replicator.cursor_interval", s.CursorInterval},
	} {
		if d.value <= 0 {
			errs = append(errs, fault.Invalid(d.field, "%s is not positive", d.value).WithRemedy("write a duration such as 10s"))
		}
	}
	if s.Heartbeat > 0 && (s.Heartbeat < minHeartbeat || s.Heartbeat > maxHeartbeat) {
		errs = append(errs, fault.Invalid("replicator.heartbeat", "%s is not between %s and %s", s.Heartbeat, minHeartbeat, maxHeartbeat).
			WithRemedy("leave it out for the default, 1s: a source refuses any other"))
	}
	if s.Heartbeat*2 > s.StreamTimeout {
		errs = append(errs, fault.Invalid("replicator.heartbeat", "%s is more than half of replicator.stream_timeout (%s)", s.Heartbeat, s.StreamTimeout).
			WithRemedy("a healthy source must have time to speak twice before it counts as silent"))
	}
	if s.RetryMin > s.RetryMax {
		errs = append(errs, fault.Invalid("replicator.retry_min", "%s is more than replicator.retry_max (%s)", s.RetryMin, s.RetryMax).
			WithRemedy("lower it"))
	}
	if s.BatchMax < 1 || s.BatchMax > maxBatch {
		errs = append(errs, fault.Invalid("replicator.batch_max", "%d is not from 1 to %d", s.BatchMax, maxBatch).WithRemedy("leave it out for the default, 512"))
	}
	return errors.Join(errs...)
}
