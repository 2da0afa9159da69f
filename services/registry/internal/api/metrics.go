package api

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what the handlers do.
type Metrics struct {
	operations *prometheus.CounterVec
	blocked    prometheus.Gauge
	expired    *prometheus.CounterVec
}

// Expired counts what a passed deadline of the catalogue changed.
func (m *Metrics) Expired(kind string) { m.expired.WithLabelValues(kind).Inc() }

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "konsul_registry_kv_operations_total", Help: "Key-value operations served here, by kind.",
		}, []string{"operation"}),
		blocked: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "konsul_registry_blocked_reads", Help: "Reads that wait for a change.",
		}),
		expired: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "konsul_registry_catalog_expired_total", Help: "Deadlines of the catalogue that passed on this leader, by what they ended: a check's report, a node's heartbeats, or (reap) a dead node itself.",
		}, []string{"deadline"}),
	}
	for _, c := range []prometheus.Collector{m.operations, m.blocked, m.expired} {
		if err := registerer.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Metrics) kv(operation string) { m.operations.WithLabelValues(operation).Inc() }
