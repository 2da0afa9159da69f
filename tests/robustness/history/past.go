package history

import (
	"fmt"
	"maps"
	"slices"

	"github.com/anishathalye/porcupine"
)

// process is one run of a server.
type process struct {
	server string
	life   int
}

// trail is what a key has been, first to last, and the place at which each process stands that was
// asked. It is never changed.
type trail struct {
	cells []cell
	at    map[process]int
}

// past is a key of which a process answers any state it has been in, but none before one that it
// has answered already.
func past() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return trail{cells: []cell{{}}} },
		Step: func(state, input, _ any) (bool, any) {
			next, ok := state.(trail).step(input.(Operation))
			return ok, next
		},
		Equal: func(a, b any) bool {
			x, y := a.(trail), b.(trail)
			return slices.Equal(x.cells, y.cells) && maps.Equal(x.at, y.at)
		},
		DescribeOperation: func(input, _ any) string { return input.(Operation).String() },
		DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
	}
}

// step returns the trail after an operation, and whether the operation can have happened now.
func (t trail) step(o Operation) (trail, bool) {
	if o.Kind == Get {
		return t.read(o)
	}
	now := t.cells[len(t.cells)-1]
	next, ok := step(now, o)
	if next != now {
		t.cells = append(slices.Clone(t.cells), next)
	}
	return t, ok
}

// read puts the process at the first state that fits: from there it can go wherever it could from a
// later one.
func (t trail) read(o Operation) (trail, bool) {
	p := process{o.Server, o.Life}
	for at := t.at[p]; at < len(t.cells); at++ {
		now, fits := step(t.cells[at], o)
		if !fits {
			continue
		}
		if now != t.cells[at] { // The read told the index.
			t.cells = slices.Clone(t.cells)
			t.cells[at] = now
		}
		if at != t.at[p] {
			if t.at = maps.Clone(t.at); t.at == nil {
				t.at = map[process]int{}
			}
			t.at[p] = at
		}
		return t, true
	}
	return t, false
}
