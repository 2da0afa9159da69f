package obs

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Register registers a collector, or answers the equal one that is registered already: services
// that share a process share the metrics of what they share, such as package rpc.
func Register[C prometheus.Collector](registerer prometheus.Registerer, collector C) (C, error) {
	err := registerer.Register(collector)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		if existing, ok := already.ExistingCollector.(C); ok {
			return existing, nil
		}
	}
	return collector, err
}
