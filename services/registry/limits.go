package registry

import (
	"errors"

	"konsul.dev/pkg/config"
	"konsul.dev/services/registry/internal/quota"
)

// Limits is the `registry.limits` section: what each token may have at a time. Services of the
// federation that act as themselves, such as agents, have no such limits. 0: no limit.
type Limits struct {
	// WatchesPerToken is how many watches a token may have open at one server.
	WatchesPerToken int `koanf:"watches_per_token"`
	// BlockedReadsPerToken is how many reads with an index, and requests for locks, of a token may
	// wait at one server.
	BlockedReadsPerToken int `koanf:"blocked_reads_per_token"`
	// LeasesPerToken is how many leases that have not ended a token may have in the datacenter.
	LeasesPerToken int `koanf:"leases_per_token"`
	// LeasesPerSecond is how many leases a token is granted a second, and twice as many at once.
	LeasesPerSecond int `koanf:"leases_per_second"`
	// RequestsPerSecond is how many calls of a token one server takes a second, and twice as many
	// at once; those that another server passes on to it count, too.
	RequestsPerSecond int `koanf:"requests_per_second"`
}

// defaultLimits are far above what one application has, and what a server bears of a few that have
// as much.
func defaultLimits() Limits {
	return Limits{WatchesPerToken: 2000, BlockedReadsPerToken: 2000, LeasesPerToken: 10_000, LeasesPerSecond: 500}
}

func (l Limits) quotas() quota.Limits {
	return quota.Limits{
		Watches: l.WatchesPerToken, BlockedReads: l.BlockedReadsPerToken, Leases: l.LeasesPerToken,
		LeasesPerSecond: l.LeasesPerSecond, RequestsPerSecond: l.RequestsPerSecond,
	}
}

func (l Limits) validate() error {
	const remedy = "use 0 for no limit"
	return errors.Join(
		config.AtLeast("registry.limits.watches_per_token", l.WatchesPerToken, 0, remedy),
		config.AtLeast("registry.limits.blocked_reads_per_token", l.BlockedReadsPerToken, 0, remedy),
		config.AtLeast("registry.limits.leases_per_token", l.LeasesPerToken, 0, remedy),
		config.AtLeast("registry.limits.leases_per_second", l.LeasesPerSecond, 0, remedy),
		config.AtLeast("registry.limits.requests_per_second", l.RequestsPerSecond, 0, remedy),
	)
}
