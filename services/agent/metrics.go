package agent

import (
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/servicedef"
	"konsul.dev/services/agent/internal/local"
)

type metrics struct {
	definitionErrors prometheus.Gauge
	runs             *prometheus.CounterVec
}

func newMetrics(registerer prometheus.Registerer, state *local.State) (*metrics, error) {
	m := &metrics{
		definitionErrors: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "konsul_agent_definition_errors",
			Help: "Service definition files of this node that are wrong now; their last good version is in force.",
		}),
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "konsul_agent_check_runs_total",
			Help: "Outcomes of this node's checks, by kind of check and status.",
		}, []string{"kind", "status"}),
	}
	services := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "konsul_agent_services", Help: "Services that this node defines.",
	}, func() float64 { return float64(len(state.Services())) })
	unsynced := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "konsul_agent_unsynced_services", Help: "Services of this node that the registry does not have as they are here.",
	}, func() float64 { return float64(unsynced(state)) })
	err := errors.Join(registerer.Register(m.definitionErrors), registerer.Register(m.runs),
		registerer.Register(services), registerer.Register(unsynced))
	if err != nil {
		return nil, fmt.Errorf("register agent metrics: %w", err)
	}
	return m, nil
}

func unsynced(state *local.State) int {
	n := 0
	for _, service := range state.Services() {
		if !service.Synced {
			n++
		}
	}
	return n
}

func (m *metrics) ran(check servicedef.Check, status registryv1.HealthStatus) {
	m.runs.WithLabelValues(check.Kind(), strings.ToLower(strings.TrimPrefix(status.String(), "HEALTH_STATUS_"))).Inc()
}
