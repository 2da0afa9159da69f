package api

import "github.com/prometheus/client_golang/prometheus"

// NewBlocked registers and returns the gauge of reads that wait.
func NewBlocked(registerer prometheus.Registerer) prometheus.Gauge {
	blocked := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "konsul_registry_blocked_reads", Help: "Reads that wait for a change.",
	})
	registerer.MustRegister(blocked)
	return blocked
}
