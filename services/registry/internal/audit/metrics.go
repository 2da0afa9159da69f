package audit

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts lines.
type Metrics struct {
	lines   *prometheus.CounterVec
	dropped *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{
		lines: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "konsul_registry_audit_lines_total", Help: "Lines of the audit log, by decision (allowed, denied).",
		}, []string{"decision"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "konsul_registry_audit_dropped_total", Help: "Lines that are missing in the audit log: denied ones that found no place, repeated denials that a later line counts, changes that went to the service's log instead, and those that failed to be written.",
		}, []string{"kind"}),
	}
	registerer.MustRegister(m.lines, m.dropped)
	return m
}
