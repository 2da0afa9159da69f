package resolve

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"konsul.dev/services/failover-router/internal/verdict"
)

// Outcomes of a resolution, for metrics.
const (
	outcomeFirst    = "first_choice"
	outcomeFailover = "failed_over"
	outcomeAll      = "all_datacenters"
	outcomeNone     = "none"
)

// Metrics counts resolutions.
type Metrics struct {
	resolves  *prometheus.CounterVec
	failovers *prometheus.CounterVec
	duration  prometheus.Histogram
}

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		resolves: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "konsul_failover_resolves_total",
			Help: "Resolutions of a service to endpoints, by outcome: first_choice, failed_over, all_datacenters or none.",
		}, []string{"outcome"}),
		failovers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "konsul_failover_failovers_total",
			Help: "Resolutions that another datacenter than the first choice answered.",
		}, []string{"from", "to"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "konsul_failover_resolve_duration_seconds",
			Help:    "Time to resolve a service to endpoints.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 12),
		}),
	}
	if err := errors.Join(registerer.Register(m.resolves), registerer.Register(m.failovers), registerer.Register(m.duration)); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}

func (m *Metrics) resolved(first string, req verdict.Request, result Result, elapsed time.Duration) {
	m.duration.Observe(elapsed.Seconds())
	outcome := outcomeFirst
	switch {
	case len(result.Endpoints) == 0:
		outcome = outcomeNone
	case req.All:
		outcome = outcomeAll
	case result.FailedOver:
		outcome = outcomeFailover
		m.failovers.WithLabelValues(first, result.Endpoints[0].Datacenter.Name).Inc()
	}
	m.resolves.WithLabelValues(outcome).Inc()
}
