package history

import "fmt"

// Atomic says where a read saw one of two things that are always written together without the
// other.
func Atomic(h *History) []error {
	var wrong []error
	for _, o := range h.Operations {
		if o.Twin != nil && *o.Twin != (Twin{o.Found, o.Value, o.Modify}) {
			wrong = append(wrong, fmt.Errorf("half a write is seen, the rest has %+v: %s", *o.Twin, o))
		}
	}
	return wrong
}
