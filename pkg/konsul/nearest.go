package konsul

import (
	"cmp"
	"math/rand/v2"
)

// SelectNearest returns the instance to use: the healthiest, then the one with the shortest round
// trip, where an unknown distance is the longest. Among equals it draws, so that callers spread
// out. It answers nil when there is none.
func SelectNearest(services []*Service) *Service {
	var best *Service
	equals := 0
	for _, s := range services {
		order := -1
		if best != nil {
			order = compare(s, best)
		}
		switch {
		case order < 0:
			best, equals = s, 1
		case order == 0:
			// Reservoir sampling: each of n equals ends up chosen with probability 1/n.
			if equals++; rand.N(equals) == 0 {
				best = s
			}
		}
	}
	return best
}

func compare(a, b *Service) int {
	return cmp.Or(
		cmp.Compare(a.Status.rank(), b.Status.rank()),
		// As an unsigned number, an unknown (negative) distance is the longest.
		cmp.Compare(uint64(a.RoundTrip), uint64(b.RoundTrip)),
	)
}
