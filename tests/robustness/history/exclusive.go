package history

import (
	"cmp"
	"fmt"
	"slices"
)

// Exclusive says where two clients could both be sure of a lock, where a fencing token did not
// grow, and where a transaction went ahead with a token that had been replaced.
func Exclusive(h *History) []error {
	locks := map[string][]Hold{}
	for _, hold := range h.Holds {
		locks[hold.Name] = append(locks[hold.Name], hold)
	}
	var wrong []error
	for name, holds := range locks {
		slices.SortFunc(holds, func(a, b Hold) int { return cmp.Compare(a.Token, b.Token) })
		for i, later := range holds {
			for _, earlier := range holds[:i] {
				switch {
				case earlier.Token == later.Token:
					wrong = append(wrong, fmt.Errorf("lock %s: token %d was given twice: %+v and %+v", name, later.Token, earlier, later))
				case later.Granted < earlier.Call:
					wrong = append(wrong, fmt.Errorf("lock %s: the token went back: %+v, then %+v", name, later, earlier))
				case max(earlier.Granted, later.Granted) < min(earlier.Until, later.Until):
					wrong = append(wrong, fmt.Errorf("lock %s: two holders at once: %+v and %+v", name, earlier, later))
				}
				for _, index := range earlier.Fenced {
					if earlier.Token < later.Token && later.Token < index {
						wrong = append(wrong, fmt.Errorf("lock %s: a transaction at index %d went ahead with token %d, though %d was given before it", name, index, earlier.Token, later.Token))
					}
				}
			}
		}
	}
	return wrong
}
