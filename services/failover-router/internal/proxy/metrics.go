package proxy

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"konsul.dev/pkg/admission"
)

// Outcomes of a proxied request, for metrics.
const (
	outcomeLocal   = "local"
	outcomeRemote  = "remote"
	outcomeFailed  = "failed"
	outcomeRefused = "refused"
)

// Metrics counts what the proxy does.
type Metrics struct {
	requests  *prometheus.CounterVec
	retries   prometheus.Counter
	ejections prometheus.Counter
	refused   *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "konsul_failover_proxy_requests_total",
			Help: "Proxied requests, by outcome: local, remote (another datacenter answered), failed or refused.",
		}, []string{"outcome"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "konsul_failover_proxy_retries_total", Help: "Proxied requests that were sent again.",
		}),
		ejections: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "konsul_failover_proxy_ejections_total", Help: "Targets that failed and were put out of use for a while.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "konsul_failover_proxy_connections_refused_total",
			Help: "Connections to the proxy that were refused, or had to make room, by reason.",
		}, []string{"reason"}),
	}
	if err := errors.Join(registerer.Register(m.requests), registerer.Register(m.retries), registerer.Register(m.ejections), registerer.Register(m.refused)); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}

// RefusedConnection counts a connection that found no place, or had to give its own up.
func (m *Metrics) RefusedConnection(reason admission.Reason) {
	m.refused.WithLabelValues(string(reason)).Inc()
}

func (m *Metrics) answered(local bool) {
	outcome := outcomeRemote
	if local {
		outcome = outcomeLocal
	}
	m.requests.WithLabelValues(outcome).Inc()
}
