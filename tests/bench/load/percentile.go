package load

import (
	"cmp"
	"math"
	"slices"
)

// Percentile returns the smallest sample that at least p of a hundred do not exceed; zero of none.
func Percentile[T cmp.Ordered](samples []T, p float64) T {
	var none T
	if len(samples) == 0 {
		return none
	}
	sorted := slices.Sorted(slices.Values(samples))
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// Median returns the middle sample, between the middle two the lower; zero of none.
func Median[T cmp.Ordered](samples []T) T { return Percentile(samples, 50) }
