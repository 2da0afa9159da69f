package api

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what the handlers do.
type Metrics struct {
	operations *prometheus.CounterVec
	blocked    prometheus.Gauge
	watchers   prometheus.Gauge
	resyncs    prometheus.Counter
	// secondLineages counts refused copies of second registries.
	secondLineages prometheus.Counter
	expired        *prometheus.CounterVec
}

// Expired counts what a passed deadline of the catalogue changed.
func (m *Metrics) Expired(kind string) { m.expired.WithLabelValues(kind).Inc() }

// OtherLineage counts that another datacenter knows this one by another registry.
func (m *Metrics) OtherLineage() { m.secondLineages.Inc() }

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "konsul_registry_kv_operations_total", Help: "Key-value operations served here, by kind.",
		}, []string{"operation"}),
		blocked: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "konsul_registry_blocked_reads", Help: "Reads that wait for a change.",
		}),
		watchers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "konsul_registry_watchers", Help: "Open watch and replication streams.",
		}),
		resyncs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "konsul_registry_watch_resyncs_total", Help: "Watchers that fell behind and were told to start again.",
		}),
		secondLineages: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "konsul_registry_second_lineages_total", Help: "How often a second registry was met under one datacenter's name: it asked for copies, or another datacenter knows it as the first.",
		}),
		expired: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "konsul_registry_catalog_expired_total", Help: "Deadlines of the catalogue that passed on this leader, by what they ended: a check's report, a node's heartbeats, or (reap) a dead node itself.",
		}, []string{"deadline"}),
	}
	for _, c := range []prometheus.Collector{m.operations, m.blocked, m.watchers, m.resyncs, m.secondLineages, m.expired} {
		if err := registerer.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Metrics) kv(operation string) { m.operations.WithLabelValues(operation).Inc() }
