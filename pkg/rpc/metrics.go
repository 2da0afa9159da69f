package rpc

import (
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"konsul.dev/pkg/obs"
)

type serverMetrics struct {
	duration *prometheus.HistogramVec
	limited  *prometheus.CounterVec
	// series finds the histogram of a served without making its labels anew.
	series sync.Map
}

type served struct {
	service, method string
	code            codes.Code
}

func newServerMetrics(registerer prometheus.Registerer) (*serverMetrics, error) {
	duration, err := obs.Register(registerer, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "konsul_rpc_server_duration_seconds",
		Help:    "Time to serve a gRPC call, by service, method and status code.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 12),
	}, []string{"service", "method", "code"}))
	if err != nil {
		return nil, err
	}
	limited, err := obs.Register(registerer, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "konsul_rpc_server_limited_total",
		Help: "Connections closed and calls refused at a limit of server.limits: connections, streams, inflight_bytes or read_timeout.",
	}, []string{"service", "limit"}))
	if err != nil {
		return nil, err
	}
	return &serverMetrics{duration: duration, limited: limited}, nil
}

func (m *serverMetrics) observe(service, method string, code codes.Code, elapsed time.Duration) {
	key := served{service, method, code}
	series, ok := m.series.Load(key)
	if !ok {
		series, _ = m.series.LoadOrStore(key, m.duration.WithLabelValues(service, strings.TrimPrefix(method, "/"), code.String()))
	}
	series.(prometheus.Observer).Observe(elapsed.Seconds()) //nolint:forcetypeassert // nothing else is stored
}
