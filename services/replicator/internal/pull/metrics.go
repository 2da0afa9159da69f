package pull

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"

	"konsul.dev/pkg/fault"
)

// Metrics counts what a puller does.
type Metrics struct {
	entries  *prometheus.CounterVec
	failures *prometheus.CounterVec
}

// NewMetrics registers a puller's counters.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		entries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "konsul_replicator_applied_entries_total",
			Help: "Replicated records committed in this datacenter, by type.",
		}, []string{"type"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "konsul_replicator_failures_total",
			Help: "Replication sessions that ended, by source datacenter and reason.",
		}, []string{"source_dc", "reason"}),
	}
	if err := errors.Join(registerer.Register(m.entries), registerer.Register(m.failures)); err != nil {
		return nil, fmt.Errorf("register replicator metrics: %w", err)
	}
	for number := range federationv1.ReplicatedEntry_EntryType_name {
		m.entries.WithLabelValues(typeName(federationv1.ReplicatedEntry_EntryType(number)))
	}
	return m, nil
}

func (m *Metrics) applied(entries []*federationv1.ReplicatedEntry) {
	for _, e := range entries {
		m.entries.WithLabelValues(typeName(e.GetType())).Inc()
	}
}

func (m *Metrics) failed(source string, err error) {
	m.failures.WithLabelValues(source, reason(err)).Inc()
}

func typeName(t federationv1.ReplicatedEntry_EntryType) string { return strings.ToLower(t.String()) }

// reason returns a stable word for an error; a source's own reason, if it gave one.
func reason(err error) string {
	switch r := fault.ReasonOf(err); {
	case r != "":
		return r
	case fault.CodeOf(err) == fault.Unavailable:
		return "UNREACHABLE"
	case fault.CodeOf(err) == fault.DeadlineExceeded, errors.Is(err, context.DeadlineExceeded):
		return "TIMEOUT"
	default:
		return "OTHER"
	}
}

// Collector tells whether every source is heard at the moment it is scraped. How old the copies are
// is told by the registry, which goes on when this process is dead or paused.
type Collector struct {
	puller    *Puller
	connected *prometheus.Desc
}

// NewCollector returns a collector of a puller's state.
func NewCollector(p *Puller) *Collector {
	return &Collector{
		puller: p,
		connected: prometheus.NewDesc("konsul_replicator_connected",
			"Whether the replicator hears the source datacenter (1) or not (0).", []string{"source_dc"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(out chan<- *prometheus.Desc) { out <- c.connected }

// Collect implements prometheus.Collector.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	for _, s := range c.puller.Status() {
		connected := 0.0
		if s.Connected {
			connected = 1
		}
		out <- prometheus.MustNewConstMetric(c.connected, prometheus.GaugeValue, connected, s.Source)
	}
}
