package lock

import "sync"

// Turns lets those who wait for one lock come one after the other, in the order in which they came:
// a lock that is given back is asked for by one of them instead of all.
type Turns struct {
	mu    sync.Mutex
	lines map[string][]*turn
}

type turn struct{ called chan struct{} }

// NewTurns returns turns for which nobody waits.
func NewTurns() *Turns { return &Turns{lines: map[string][]*turn{}} }

// Join stands in line for a lock. The channel is closed when it is the caller's turn, who must
// leave, whether it came to that or not.
func (t *Turns) Join(name string) (called <-chan struct{}, leave func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := &turn{called: make(chan struct{})}
	t.lines[name] = append(t.lines[name], own)
	if len(t.lines[name]) == 1 {
		close(own.called)
	}
	return own.called, func() { t.leave(name, own) }
}

func (t *Turns) leave(name string, own *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	line := t.lines[name]
	for i, other := range line {
		if other != own {
			continue
		}
		line = append(line[:i:i], line[i+1:]...)
		if i == 0 && len(line) > 0 {
			close(line[0].called)
		}
		break
	}
	if len(line) == 0 {
		delete(t.lines, name)
		return
	}
	t.lines[name] = line
}
