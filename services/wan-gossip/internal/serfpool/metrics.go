package serfpool

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"konsul.dev/pkg/admission"
	"konsul.dev/pkg/obs"
)

// reasonTooLong is a stream that was cut for its length.
const reasonTooLong admission.Reason = "too_many_bytes"

// Metrics counts what strangers try.
type Metrics struct {
	streams  *prometheus.CounterVec
	warnings prometheus.Counter
}

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	streams, streamsErr := obs.Register(registerer, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "konsul_wan_gossip_streams_refused_total", Help: "Gossip exchanges over TCP that were refused or cut, by reason.",
	}, []string{"reason"}))
	warnings, warningsErr := obs.Register(registerer, prometheus.NewCounter(prometheus.CounterOpts{
		Name: "konsul_wan_gossip_library_warnings_total",
		Help: "Warnings of the gossip library, such as packets that no key opens; the log holds a few of each kind a minute.",
	}))
	if err := errors.Join(streamsErr, warningsErr); err != nil {
		return nil, err
	}
	for _, reason := range append(admission.Reasons(), reasonTooLong) {
		streams.WithLabelValues(string(reason))
	}
	return &Metrics{streams: streams, warnings: warnings}, nil
}

func (m *Metrics) refused(reason admission.Reason) { m.streams.WithLabelValues(string(reason)).Inc() }
