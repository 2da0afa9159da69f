package changes

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts streams.
type Metrics struct {
	Streams prometheus.Gauge
	Resyncs prometheus.Counter
}

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{
		Streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "konsul_registry_watchers", Help: "Open watch and replication streams.",
		}),
		Resyncs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "konsul_registry_watch_resyncs_total", Help: "Watchers that fell behind and were told to start again.",
		}),
	}
	registerer.MustRegister(m.Streams, m.Resyncs)
	return m
}
