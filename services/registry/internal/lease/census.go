package lease

import (
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/record"
)

// Census counts leases, by the tokens they were granted with, and the locks that leases hold, as
// they are committed: on every server, whoever leads. Safe for concurrent use.
type Census struct {
	leasesGauge, lockGauge prometheus.Gauge

	mu sync.Mutex
	// leases maps the rows of leases to accessor ids.
	leases map[string]string
	held   map[string]int
	locks  map[string]struct{}
}

// NewCensus returns a census of nothing and registers its metrics.
func NewCensus(registerer prometheus.Registerer) *Census {
	c := &Census{
		leases: map[string]string{}, held: map[string]int{}, locks: map[string]struct{}{},
		leasesGauge: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "konsul_registry_leases", Help: "Leases that have not ended.",
		}),
		lockGauge: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "konsul_registry_locks_held", Help: "Locks that a lease holds.",
		}),
	}
	registerer.MustRegister(c.leasesGauge, c.lockGauge)
	return c
}

// Held returns how many leases that have not ended a token was granted.
func (c *Census) Held(accessor string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held[accessor]
}

// Apply follows a batch.
func (c *Census) Apply(rows []*registryv1.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, row := range rows {
		if err := c.count(row); err != nil {
			return err
		}
	}
	c.show()
	return nil
}

// Load counts anew.
func (c *Census) Load(r record.Reader) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.leases)
	clear(c.held)
	clear(c.locks)
	for _, options := range []struct {
		table  registryv1.Table
		prefix string
	}{{table, fsm.LeasePrefix}, {registryv1.Table_TABLE_LOCK, ""}} {
		if err := record.Each(r, options.table, record.ScanOptions{Prefix: options.prefix}, c.count); err != nil {
			return err
		}
	}
	c.show()
	return nil
}

// count follows a row. It runs under mu.
func (c *Census) count(row *registryv1.Record) error {
	switch row.GetTable() {
	case table:
		if !strings.HasPrefix(row.GetKey(), fsm.LeasePrefix) {
			return nil
		}
		if row.GetDeleted() {
			c.forget(row.GetKey())
			return nil
		}
		lease, err := Decode(row)
		if err != nil {
			return err
		}
		c.forget(row.GetKey())
		c.leases[row.GetKey()] = lease.GetAccessorId()
		c.held[lease.GetAccessorId()]++
	case registryv1.Table_TABLE_LOCK:
		lock, err := fsm.DecodeLock(row)
		if err != nil {
			return err
		}
		if lock.GetLease() == "" {
			delete(c.locks, row.GetKey())
			return nil
		}
		c.locks[row.GetKey()] = struct{}{}
	}
	return nil
}

func (c *Census) forget(key string) {
	accessor, known := c.leases[key]
	if !known {
		return
	}
	delete(c.leases, key)
	if c.held[accessor]--; c.held[accessor] == 0 {
		delete(c.held, accessor)
	}
}

func (c *Census) show() {
	c.leasesGauge.Set(float64(len(c.leases)))
	c.lockGauge.Set(float64(len(c.locks)))
}
