// Package balance chooses among addresses: those that did not fail lately first, and of two drawn
// at random the one with fewer connections (M. Mitzenmacher, "The Power of Two Choices in
// Randomized Load Balancing", 2001).
//
// Health is passive: an address that could not be dialled is avoided for a while that doubles with
// every further failure, and is still tried when nothing better is left. A Balancer is safe for
// concurrent use.
package balance

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// How long an address is avoided after its first failure, and at most.
const (
	avoidFirst = 250 * time.Millisecond
	avoidMost  = 15 * time.Second
)

// maxKnown bounds the addresses remembered; instances come and go for as long as a gateway lives.
const maxKnown = 4096

// Balancer remembers load and failures of addresses.
type Balancer struct {
	now  func() time.Time
	draw func(n int) int

	mu    sync.Mutex
	known map[string]*state
}

type state struct {
	open     int
	failures int
	until    time.Time
}

// New returns a balancer that knows nothing yet. draw answers a random number in [0,n); it is
// called by one goroutine at a time.
func New(now func() time.Time, draw func(n int) int) *Balancer {
	return &Balancer{now: now, draw: draw, known: map[string]*state{}}
}

// Order returns the addresses in the order in which to try them. The argument is left alone.
func (b *Balancer) Order(addresses []string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	var healthy, avoided []string
	for _, a := range addresses {
		if s := b.known[a]; s != nil && s.until.After(now) {
			avoided = append(avoided, a)
		} else {
			healthy = append(healthy, a)
		}
	}
	// Of the avoided, the one that may be back soonest.
	slices.SortStableFunc(avoided, func(x, y string) int { return b.known[x].until.Compare(b.known[y].until) })
	b.shuffle(healthy)
	if len(healthy) > 1 && b.load(healthy[1]) < b.load(healthy[0]) {
		healthy[0], healthy[1] = healthy[1], healthy[0]
	}
	return append(healthy, avoided...)
}

func (b *Balancer) shuffle(addresses []string) {
	for i := len(addresses) - 1; i > 0; i-- {
		j := b.draw(i + 1)
		addresses[i], addresses[j] = addresses[j], addresses[i]
	}
}

func (b *Balancer) load(address string) int {
	if s := b.known[address]; s != nil {
		return s.open
	}
	return 0
}

// Failed records that an address could not be reached, and says whether that is news.
func (b *Balancer) Failed(address string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.state(address)
	wait := avoidMost
	if shift := s.failures; shift < 6 {
		wait = min(avoidMost, avoidFirst<<shift)
	}
	s.failures++
	s.until = b.now().Add(wait)
	return s.failures == 1
}

// Opened records a new connection to an address, which is healthy therefore. Call the answered
// function once when the connection has ended.
func (b *Balancer) Opened(address string) (closed func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.state(address)
	s.open++
	s.failures, s.until = 0, time.Time{}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		s.open--
	}
}

// state returns what is known of an address; the lock is held.
func (b *Balancer) state(address string) *state {
	if s := b.known[address]; s != nil {
		return s
	}
	if len(b.known) >= maxKnown {
		b.forget()
	}
	s := &state{}
	b.known[address] = s
	return s
}

// forget drops half of the addresses that nobody is connected to, those least worth knowing first.
func (b *Balancer) forget() {
	var idle []string
	for address, s := range b.known {
		if s.open == 0 {
			idle = append(idle, address)
		}
	}
	slices.SortFunc(idle, func(x, y string) int {
		return cmp.Or(b.known[x].until.Compare(b.known[y].until), cmp.Compare(x, y))
	})
	for _, address := range idle[:(len(idle)+1)/2] {
		delete(b.known, address)
	}
}
