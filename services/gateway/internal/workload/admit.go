package workload

import (
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
)

// ReasonCallerDenied is the reason of a refused caller of a workload.
const ReasonCallerDenied = "WORKLOAD_CALLER_DENIED"

// routerService is the one control-plane service that carries workload traffic.
const routerService = "failover-router"

// Admit returns nil for who may reach workloads: the federation's workloads and, of every
// datacenter, the failover-routers that call on their behalf.
func Admit(id identity.ID) error {
	if id.Kind == identity.KindWorkload || id.Kind == identity.KindService && id.Service == routerService {
		return nil
	}
	return fault.New(fault.PermissionDenied, ReasonCallerDenied, "%s may not reach workloads", id).
		WithRemedy("call through the failover-router's proxy, or with a workload identity")
}
