package leading

import "github.com/prometheus/client_golang/prometheus"

// NewExpired registers and returns the counter of deadlines that passed.
func NewExpired(registerer prometheus.Registerer) *prometheus.CounterVec {
	expired := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "konsul_registry_catalog_expired_total", Help: "Deadlines of the catalogue that passed on this leader, by what they ended: a check's report, a node's heartbeats, or (reap) a dead node itself.",
	}, []string{"deadline"})
	registerer.MustRegister(expired)
	return expired
}
