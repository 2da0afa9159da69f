package lease

import (
	"cmp"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/record"
)

// Census counts leases, and the locks that leases hold, as they are committed: on every server, whoever leads. Apply and
// Load belong to one goroutine.
type Census struct {
	leases, locks          map[string]struct{}
	leasesGauge, lockGauge prometheus.Gauge
}

// NewCensus answers a census of nothing and registers its metrics.
func NewCensus(registerer prometheus.Registerer) (*Census, error) {
	c := &Census{
		leases: map[string]struct{}{}, locks: map[string]struct{}{},
		leasesGauge: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "konsul_registry_leases", Help: "Leases that have not ended.",
		}),
		lockGauge: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "konsul_registry_locks_held", Help: "Locks that a lease holds.",
		}),
	}
	for _, gauge := range []prometheus.Collector{c.leasesGauge, c.lockGauge} {
		if err := registerer.Register(gauge); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Apply follows a batch.
func (c *Census) Apply(rows []*registryv1.Record) error {
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
	clear(c.leases)
	clear(c.locks)
	for _, options := range []struct {
		table  registryv1.Table
		prefix string
	}{{table, fsm.LeasePrefix}, {registryv1.Table_TABLE_LOCK, ""}} {
		var failure error
		err := r.Scan(options.table, record.ScanOptions{Prefix: options.prefix}, func(row *registryv1.Record) bool {
			failure = c.count(row)
			return failure == nil
		})
		if err := cmp.Or(err, failure); err != nil {
			return err
		}
	}
	c.show()
	return nil
}

func (c *Census) count(row *registryv1.Record) error {
	note := func(in map[string]struct{}, there bool) {
		if there {
			in[row.GetKey()] = struct{}{}
			return
		}
		delete(in, row.GetKey())
	}
	switch row.GetTable() {
	case table:
		if strings.HasPrefix(row.GetKey(), fsm.LeasePrefix) {
			note(c.leases, !row.GetDeleted())
		}
	case registryv1.Table_TABLE_LOCK:
		lock, err := fsm.DecodeLock(row)
		if err != nil {
			return err
		}
		note(c.locks, lock.GetLease() != "")
	}
	return nil
}

func (c *Census) show() {
	c.leasesGauge.Set(float64(len(c.leases)))
	c.lockGauge.Set(float64(len(c.locks)))
}
