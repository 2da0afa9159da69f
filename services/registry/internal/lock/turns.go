package lock

import (
	"slices"
	"sync"
)

// Turns lets those who wait for one lock come one after the other, in the order in which they came:
// a lock that is given back is asked for by one of them instead of all.
type Turns struct {
	mu    sync.Mutex
	lines map[string][]chan struct{}
}

// NewTurns returns turns for which nobody waits.
func NewTurns() *Turns { return &Turns{lines: map[string][]chan struct{}{}} }

// Join stands in line for a lock. The channel is closed when it is the caller's turn, who must
// leave once, whether it came to that or not.
func (t *Turns) Join(name string) (called <-chan struct{}, leave func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := make(chan struct{})
	t.lines[name] = append(t.lines[name], own)
	if len(t.lines[name]) == 1 {
		close(own)
	}
	return own, func() { t.leave(name, own) }
}

func (t *Turns) leave(name string, own chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := slices.Index(t.lines[name], own)
	line := slices.Delete(t.lines[name], at, at+1)
	t.lines[name] = line
	switch {
	case len(line) == 0:
		delete(t.lines, name)
	case at == 0:
		close(line[0])
	}
}
