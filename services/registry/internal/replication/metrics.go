package replication

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what should not happen.
type Metrics struct{ secondLineages prometheus.Counter }

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{secondLineages: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "konsul_registry_second_lineages_total", Help: "How often a second registry was met under one datacenter's name: it asked for copies, or another datacenter knows it as the first.",
	})}
	registerer.MustRegister(m.secondLineages)
	return m
}

// OtherLineage counts that another datacenter knows this one by another registry.
func (m *Metrics) OtherLineage() { m.secondLineages.Inc() }
