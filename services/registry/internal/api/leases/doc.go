// Package leases serves the lease service. It answers where the leader is, which alone knows how
// long a lease has to go.
package leases
