package konsul

import registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

// Status is the health of a check or, as the worst of its checks, of an instance.
type Status string

// The statuses, from good to bad.
const (
	// StatusUnknown is reported by nobody; a check registered with it keeps the status it has.
	StatusUnknown  Status = ""
	StatusPassing  Status = "passing"
	StatusWarning  Status = "warning"
	StatusCritical Status = "critical"
)

func statusFrom(s registryv1.HealthStatus) Status {
	switch s {
	case registryv1.HealthStatus_HEALTH_STATUS_PASSING:
		return StatusPassing
	case registryv1.HealthStatus_HEALTH_STATUS_WARNING:
		return StatusWarning
	case registryv1.HealthStatus_HEALTH_STATUS_CRITICAL:
		return StatusCritical
	default:
		return StatusUnknown
	}
}

// Proto returns the status as the contracts spell it; false when it is none.
func (s Status) Proto() (registryv1.HealthStatus, bool) {
	switch s {
	case StatusUnknown:
		return registryv1.HealthStatus_HEALTH_STATUS_UNSPECIFIED, true
	case StatusPassing:
		return registryv1.HealthStatus_HEALTH_STATUS_PASSING, true
	case StatusWarning:
		return registryv1.HealthStatus_HEALTH_STATUS_WARNING, true
	case StatusCritical:
		return registryv1.HealthStatus_HEALTH_STATUS_CRITICAL, true
	default:
		return registryv1.HealthStatus_HEALTH_STATUS_UNSPECIFIED, false
	}
}

// rank orders statuses from good to bad.
func (s Status) rank() int {
	switch s {
	case StatusPassing:
		return 0
	case StatusWarning:
		return 1
	case StatusCritical:
		return 3
	default:
		return 2
	}
}

// ReadMode says how fresh an answer must be.
type ReadMode int

// The read modes.
const (
	// ReadDefault is answered by the leader under its lease.
	ReadDefault ReadMode = iota
	// ReadStale is answered by any server at once.
	ReadStale
	// ReadLinearizable is answered after a quorum confirmed the leader.
	ReadLinearizable
)

func (m ReadMode) proto() registryv1.ReadMode {
	switch m {
	case ReadStale:
		return registryv1.ReadMode_READ_MODE_STALE
	case ReadLinearizable:
		return registryv1.ReadMode_READ_MODE_LINEARIZABLE
	default:
		return registryv1.ReadMode_READ_MODE_DEFAULT
	}
}
