package listener

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"konsul.dev/pkg/admission"
	"konsul.dev/pkg/obs"
)

// Metrics are those of the mesh port. The first three have the names ADR-0027 gives them.
type Metrics struct {
	connections *prometheus.GaugeVec
	sent        *prometheus.CounterVec
	received    *prometheus.CounterVec
	rejected    *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	direction := []string{"source_dc", "target_dc"}
	var errs [4]error
	m := &Metrics{}
	m.connections, errs[0] = obs.Register(registerer, prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "konsul_mesh_gateway_connections", Help: "Open connections with another datacenter; unknown when it cannot be told who dialled.",
	}, []string{"datacenter"}))
	m.sent, errs[1] = obs.Register(registerer, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "konsul_mesh_gateway_bytes_sent", Help: "Bytes that left this datacenter for the target.",
	}, direction))
	m.received, errs[2] = obs.Register(registerer, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "konsul_mesh_gateway_bytes_received", Help: "Bytes that arrived in this datacenter from the source.",
	}, direction))
	m.rejected, errs[3] = obs.Register(registerer, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "konsul_gateway_rejected_total", Help: "Connections to the mesh port that were not passed on, or had to make room, by reason.",
	}, []string{"reason"}))
	for _, reason := range admission.Reasons() {
		m.rejected.WithLabelValues(string(reason))
	}
	return m, errors.Join(errs[:]...)
}

// refused counts a connection that found no place, or had to give its own up.
func (m *Metrics) refused(reason admission.Reason) { m.rejected.WithLabelValues(string(reason)).Inc() }
