package keys

import "github.com/prometheus/client_golang/prometheus"

// NewOperations registers and returns the counter of key-value operations.
func NewOperations(registerer prometheus.Registerer) *prometheus.CounterVec {
	operations := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "konsul_registry_kv_operations_total", Help: "Key-value operations served here, by kind.",
	}, []string{"operation"})
	registerer.MustRegister(operations)
	return operations
}
