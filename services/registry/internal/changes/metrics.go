package changes

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts streams.
type Metrics struct {
	Streams prometheus.Gauge
	Resyncs prometheus.Counter
}

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		Streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "konsul_registry_watchers", Help: "Open watch and replication streams.",
		}),
		Resyncs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "konsul_registry_watch_resyncs_total", Help: "Watchers that fell behind and were told to start again.",
		}),
	}
	return m, errors.Join(registerer.Register(m.Streams), registerer.Register(m.Resyncs))
}
