package history

import "fmt"

// Atomic says where a transaction read one of two keys that are always written together without the other.
func Atomic(h *History) []error {
	var wrong []error
	for _, o := range h.Operations {
		if o.Twin != nil && *o.Twin != (Twin{o.Found, o.Value, o.Modify}) {
			wrong = append(wrong, fmt.Errorf("half a transaction is seen, the other key has %+v: %s", *o.Twin, o))
		}
	}
	return wrong
}
