package restedge

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/felixge/httpsnoop"
	"github.com/prometheus/client_golang/prometheus"

	"konsul.dev/pkg/admission"
	"konsul.dev/pkg/obs"
)

type metrics struct{ requests, connections, limited *prometheus.CounterVec }

func newMetrics(registerer prometheus.Registerer) (metrics, error) {
	requests, err := obs.Register(registerer, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "konsul_gateway_requests_total", Help: "Calls at the people's edge, by what they speak (rest, grpc) and HTTP status.",
	}, []string{"face", "status"}))
	if err != nil {
		return metrics{}, fmt.Errorf("register edge metrics: %w", err)
	}
	connections, err := obs.Register(registerer, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "konsul_gateway_edge_connections_refused_total",
		Help: "Connections to the people's edge that were refused, or had to make room, by reason.",
	}, []string{"reason"}))
	if err != nil {
		return metrics{}, fmt.Errorf("register edge metrics: %w", err)
	}
	for _, reason := range admission.Reasons() {
		connections.WithLabelValues(string(reason))
	}
	limited, err := obs.Register(registerer, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "konsul_gateway_requests_limited_total", Help: "Calls at the people's edge that were refused at a limit, such as inflight_bytes.",
	}, []string{"limit"}))
	if err != nil {
		return metrics{}, fmt.Errorf("register edge metrics: %w", err)
	}
	return metrics{requests, connections, limited}, nil
}

func (m metrics) met(limit string) { m.limited.WithLabelValues(limit).Inc() }

// refused counts a connection that found no place, or had to give its own up.
func (m metrics) refused(reason admission.Reason) {
	m.connections.WithLabelValues(string(reason)).Inc()
}

func (m metrics) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		face := "rest"
		if isGRPC(r) {
			face = "grpc"
		}
		seen := httpsnoop.CaptureMetrics(next, w, r)
		m.requests.WithLabelValues(face, strconv.Itoa(seen.Code)).Inc()
	})
}
