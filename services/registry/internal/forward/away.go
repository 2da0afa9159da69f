package forward

import (
	"sync"
	"time"
)

// away remembers since when other datacenters have not answered. Safe for concurrent use.
type away struct {
	mu    sync.Mutex
	first map[string]time.Time
}

func newAway() *away { return &away{first: map[string]time.Time{}} }

// note keeps how a call to a datacenter ended. The names are those of members, so they are few.
func (a *away) note(datacenter string, unanswered bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, known := a.first[datacenter]
	switch {
	case !unanswered:
		delete(a.first, datacenter)
	case !known:
		a.first[datacenter] = time.Now()
	}
}

// since returns for how long a datacenter has not answered; 0: it did when it was last asked.
func (a *away) since(datacenter string) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	first, ok := a.first[datacenter]
	if !ok {
		return 0
	}
	return time.Since(first)
}
