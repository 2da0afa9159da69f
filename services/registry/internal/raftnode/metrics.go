package raftnode

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"konsul.dev/pkg/admission"
	"konsul.dev/services/registry/internal/readlease"
)

// Metrics counts what a node does.
type Metrics struct {
	apply     prometheus.Histogram
	batch     prometheus.Histogram
	index     prometheus.Gauge
	leader    prometheus.Gauge
	elections prometheus.Counter
	propose   prometheus.Histogram
	entry     prometheus.Histogram
	restores  prometheus.Histogram
	// readLeases counts what became of the leases to read, by event.
	readLeases *prometheus.CounterVec
	// refused counts connections to the Raft port that found no place, by reason.
	refused *prometheus.CounterVec
}

// NewMetrics registers the node's metrics.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{
		apply: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "konsul_registry_apply_duration_seconds", Help: "Time to apply one batch of committed entries.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 12),
		}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "konsul_registry_apply_batch_entries", Help: "Committed entries applied together.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}),
		index: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "konsul_registry_applied_index", Help: "Raft index of the last applied command.",
		}),
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "konsul_registry_leader", Help: "1 while this server leads its datacenter, else 0.",
		}),
		elections: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "konsul_registry_leadership_gained_total", Help: "How often this server became the leader.",
		}),
		propose: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "konsul_registry_commit_duration_seconds", Help: "Time from proposing a command to its outcome, on the leader.",
			Buckets: prometheus.ExponentialBuckets(0.0002, 2.5, 12),
		}),
		entry: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "konsul_registry_entry_commands", Help: "Commands that share one log entry, on the leader.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}),
	}
	m.restores = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "konsul_registry_restore_duration_seconds", Help: "Time to replace the state by a snapshot, at start or from the leader.",
		Buckets: prometheus.ExponentialBuckets(0.01, 4, 10),
	})
	m.readLeases = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "konsul_registry_read_leases_total",
		Help: "Leases to answer default reads that this leader gave, took back before a write, or had to let end before one, by event (given, recalled, outlasted).",
	}, []string{"event"})
	m.refused = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "konsul_registry_raft_connections_refused_total",
		Help: "Connections to the Raft port that were refused, or had to make room, by reason.",
	}, []string{"reason"})
	for _, reason := range admission.Reasons() {
		m.refused.WithLabelValues(string(reason))
	}
	registerer.MustRegister(m.refused, m.readLeases, m.apply, m.batch, m.index, m.leader, m.elections, m.propose, m.entry, m.restores)
	return m
}

func (m *Metrics) readLease(event readlease.Event) {
	m.readLeases.WithLabelValues(string(event)).Inc()
}

func (m *Metrics) refusedPeer(reason admission.Reason) {
	m.refused.WithLabelValues(string(reason)).Inc()
}

func (m *Metrics) applied(entries int, elapsed time.Duration, index uint64) {
	m.apply.Observe(elapsed.Seconds())
	m.batch.Observe(float64(entries))
	m.index.Set(float64(index))
}

func (m *Metrics) restored(elapsed time.Duration, index uint64) {
	m.restores.Observe(elapsed.Seconds())
	m.index.Set(float64(index))
}

func (m *Metrics) leads(now bool) {
	if now {
		m.leader.Set(1)
		m.elections.Inc()
		return
	}
	m.leader.Set(0)
}
