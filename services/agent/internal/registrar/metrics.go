package registrar

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts what a registrar does.
type Metrics struct {
	syncs *prometheus.CounterVec
}

// NewMetrics registers a registrar's counter.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{syncs: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "konsul_agent_syncs_total",
		Help: "Comparisons with and reports to the registry, by result (ok or failed).",
	}, []string{"result"})}
	if err := registerer.Register(m.syncs); err != nil {
		return nil, fmt.Errorf("register sync metrics: %w", err)
	}
	for _, result := range []string{"ok", "failed"} {
		m.syncs.WithLabelValues(result)
	}
	return m, nil
}

func (m *Metrics) synced(err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.syncs.WithLabelValues(result).Inc()
}
