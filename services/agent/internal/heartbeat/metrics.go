package heartbeat

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// How a beat ends.
const (
	resultOK         = "ok"
	resultFailed     = "failed"
	resultUnexpected = "unexpected"
)

// Metrics counts beats.
type Metrics struct {
	beats *prometheus.CounterVec
}

// NewMetrics registers a heart's counter.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{beats: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "konsul_agent_heartbeats_total",
		Help: "Heartbeats of this node, by result: ok, failed, or unexpected (the node was not registered, or without heartbeats).",
	}, []string{"result"})}
	if err := registerer.Register(m.beats); err != nil {
		return nil, fmt.Errorf("register heartbeat metrics: %w", err)
	}
	for _, result := range []string{resultOK, resultFailed, resultUnexpected} {
		m.beats.WithLabelValues(result)
	}
	return m, nil
}

func (m *Metrics) beat(result string) { m.beats.WithLabelValues(result).Inc() }
