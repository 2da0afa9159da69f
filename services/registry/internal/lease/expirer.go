package lease

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/clock"
)

// Pauses between attempts to make known what has expired.
const (
	retryMin = 20 * time.Millisecond
	retryMax = time.Second
)

// Expirer keeps deadlines and tells when they pass. Safe for concurrent use, but for Run, which one
// goroutine may be in.
type Expirer struct {
	clock clock.Clock
	// wake tells Run that an earlier deadline may have come.
	wake chan struct{}

	mu      sync.Mutex
	entries map[string]*entry
	queue   queue
}

// entry is a deadline; at is its place in the queue.
type entry struct {
	key string
	ttl time.Duration
	due time.Time
	at  int
}

// NewExpirer returns an expirer without deadlines.
func NewExpirer(c clock.Clock) *Expirer {
	return &Expirer{clock: c, wake: make(chan struct{}, 1), entries: map[string]*entry{}}
}

// Reset replaces all deadlines and begins them now: each gets its whole TTL.
func (e *Expirer) Reset(deadlines map[string]time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.clock.Now()
	e.entries = make(map[string]*entry, len(deadlines))
	e.queue = make(queue, 0, len(deadlines))
	for key, ttl := range deadlines {
		n := &entry{key: key, ttl: ttl, due: now.Add(ttl), at: len(e.queue)}
		e.entries[key] = n
		e.queue = append(e.queue, n)
	}
	heap.Init(&e.queue)
	e.poke()
}

// Set adds a deadline, or changes its TTL and renews it.
func (e *Expirer) Set(key string, ttl time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.entries[key]
	if n == nil {
		n = &entry{key: key, ttl: ttl, due: e.clock.Now().Add(ttl)}
		e.entries[key] = n
		heap.Push(&e.queue, n)
	} else {
		n.ttl, n.due = ttl, e.clock.Now().Add(ttl)
		heap.Fix(&e.queue, n.at)
	}
	if n.at == 0 {
		e.poke()
	}
}

// Renew begins a deadline anew; false when it is not known here.
func (e *Expirer) Renew(key string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.entries[key]
	if n == nil {
		return false
	}
	n.due = e.clock.Now().Add(n.ttl)
	heap.Fix(&e.queue, n.at)
	return true
}

// Remove forgets a deadline.
func (e *Expirer) Remove(key string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := e.entries[key]; n != nil {
		e.drop(n)
	}
}

func (e *Expirer) drop(n *entry) {
	heap.Remove(&e.queue, n.at)
	delete(e.entries, n.key)
}

// Left returns how long a deadline has to go, 0 or less when it has passed; false: it is not known
// here.
func (e *Expirer) Left(key string) (time.Duration, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.entries[key]
	if n == nil {
		return 0, false
	}
	return n.due.Sub(e.clock.Now()), true
}

// Run calls expire with the deadlines that have passed until ctx ends. They are kept until expire
// returns nil; those that were set or renewed meanwhile are kept on. Run returns nil.
func (e *Expirer) Run(ctx context.Context, expire func(ctx context.Context, keys []string) error) error {
	pause := backoff.New(retryMin, retryMax)
	for ctx.Err() == nil {
		passed, next := e.passed()
		if len(passed) == 0 {
			e.wait(ctx, next)
			continue
		}
		keys := make([]string, 0, len(passed))
		for key := range passed {
			keys = append(keys, key)
		}
		if err := expire(ctx, keys); err != nil {
			// Its caller says what failed. The only error of waiting is that ctx has ended, which
			// the loop sees.
			_ = pause.Wait(ctx)
			continue
		}
		pause.Reset()
		e.settle(passed)
	}
	return nil
}

// passed returns the deadlines that have passed and when they did, or how long the first one has to
// go; 0: there is none.
func (e *Expirer) passed() (map[string]time.Time, time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) == 0 {
		return nil, 0
	}
	now := e.clock.Now()
	if left := e.queue[0].due.Sub(now); left > 0 {
		return nil, left
	}
	due := map[string]time.Time{}
	e.queue.until(0, now, due)
	return due, 0
}

// settle forgets what expired, unless it lives again.
func (e *Expirer) settle(passed map[string]time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for key, due := range passed {
		if n := e.entries[key]; n != nil && n.due.Equal(due) {
			e.drop(n)
		}
	}
}

func (e *Expirer) wait(ctx context.Context, next time.Duration) {
	var timer <-chan time.Time
	if next > 0 {
		timer = e.clock.After(next)
	}
	select {
	case <-ctx.Done():
	case <-e.wake:
	case <-timer:
	}
}

func (e *Expirer) poke() {
	select {
	case e.wake <- struct{}{}:
	default: // Run will look anyway.
	}
}

// queue is a heap of deadlines, the first due on top.
type queue []*entry

// until collects what is due by now from an element down.
func (q queue) until(at int, now time.Time, due map[string]time.Time) {
	if at >= len(q) || q[at].due.After(now) {
		return
	}
	due[q[at].key] = q[at].due
	q.until(2*at+1, now, due)
	q.until(2*at+2, now, due)
}

// Len implements heap.Interface.
func (q queue) Len() int { return len(q) }

// Less implements heap.Interface.
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }

// Swap implements heap.Interface.
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].at, q[j].at = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	n := x.(*entry)
	n.at = len(*q)
	*q = append(*q, n)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := len(*q) - 1
	n := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return n
}
