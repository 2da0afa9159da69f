package backup

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics tell how the scheduled backups of this server go.
type Metrics struct {
	last, duration, size prometheus.Gauge
	failures             prometheus.Counter
}

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{
		last: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "konsul_backup_last_success_timestamp_seconds", Help: "When this server's last scheduled backup was made, or was last found to be all there is; 0 when it never made one.",
		}),
		duration: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "konsul_backup_duration_seconds", Help: "How long this server's last scheduled backup took.",
		}),
		size: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "konsul_backup_size_bytes", Help: "Size of this server's last scheduled backup.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "konsul_backup_failures_total", Help: "Scheduled backups that failed on this server.",
		}),
	}
	registerer.MustRegister(m.last, m.duration, m.size, m.failures)
	return m
}

// fresh says that the last backup was all there is at some time.
func (m *Metrics) fresh(at time.Time) { m.last.Set(float64(at.UnixMilli()) / 1000) }

func (m *Metrics) made(at time.Time, took time.Duration, bytes int64) {
	m.fresh(at)
	m.duration.Set(took.Seconds())
	m.size.Set(float64(bytes))
}
