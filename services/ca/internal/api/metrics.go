package api

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics count what the ca signs and refuses.
type Metrics struct {
	Issued  *prometheus.CounterVec
	Refused *prometheus.CounterVec
}

// NewMetrics registers the ca's metrics.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		Issued: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "konsul_ca_certificates_issued_total", Help: "Leaf certificates signed, by service.",
		}, []string{"service"}),
		Refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "konsul_ca_proofs_refused_total", Help: "Requests whose proof did not hold, by kind of secret.",
		}, []string{"kind"}),
	}
	return m, errors.Join(registerer.Register(m.Issued), registerer.Register(m.Refused))
}
