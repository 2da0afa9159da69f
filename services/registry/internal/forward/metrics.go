package forward

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts calls to other datacenters.
type Metrics struct {
	queries  *prometheus.CounterVec
	duration *prometheus.HistogramVec
	// otherLineage counts what was meant for another registry.
	otherLineage prometheus.Counter

	mu sync.Mutex
	// services are those that another datacenter answered with.
	services map[string]struct{}
}

const (
	// mostServices bounds the series: whoever registers services by the thousand makes no more of
	// them.
	mostServices = 1000
	// unknownService labels what nobody has, or is one too many.
	unknownService = "unknown"
)

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{
		services: map[string]struct{}{},
		queries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "konsul_cross_dc_queries_total", Help: "Calls passed on to another datacenter, by service asked for; unknown: one that it did not answer with.",
		}, []string{"source_dc", "target_dc", "service"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "konsul_cross_dc_query_duration_seconds", Help: "Time until another datacenter answered, or did not.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}, []string{"source_dc", "target_dc"}),
		otherLineage: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "konsul_registry_other_lineage_calls_total", Help: "Calls of other datacenters that were refused because they are meant for another registry of this datacenter's name.",
		}),
	}
	registerer.MustRegister(m.queries, m.duration, m.otherLineage)
	return m
}

// known returns the label of a service that a caller asked for: its name once an answer has shown
// that there is one.
func (m *Metrics) known(service string, found bool) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.services[service]; ok {
		return service
	}
	if !found || len(m.services) == mostServices {
		return unknownService
	}
	m.services[service] = struct{}{}
	return service
}

func (m *Metrics) crossed(source, target, service string, elapsed time.Duration) {
	m.queries.WithLabelValues(source, target, service).Inc()
	m.duration.WithLabelValues(source, target).Observe(elapsed.Seconds())
}
