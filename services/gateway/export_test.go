package gateway

import "konsul.dev/pkg/admission"

// PortLimits lets tests choose how many files the process may open.
func PortLimits(s Settings, files uint64) (mesh, edge admission.Limits, err error) {
	return s.portLimits(files)
}
