package forward

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts calls to other datacenters.
type Metrics struct {
	queries  *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		queries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "konsul_cross_dc_queries_total", Help: "Calls passed on to another datacenter, by service asked for.",
		}, []string{"source_dc", "target_dc", "service"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "konsul_cross_dc_query_duration_seconds", Help: "Time until another datacenter answered, or did not.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}, []string{"source_dc", "target_dc"}),
	}
	for _, c := range []prometheus.Collector{m.queries, m.duration} {
		if err := registerer.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Metrics) crossed(source, target, service string, elapsed time.Duration) {
	m.queries.WithLabelValues(source, target, service).Inc()
	m.duration.WithLabelValues(source, target).Observe(elapsed.Seconds())
}
