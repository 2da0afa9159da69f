package coalesce

import (
	"runtime"
	"sync"
)

// Params is what a Queue is made of.
type Params[T any] struct {
	// Trips is how many batches may be out at once; at least 1.
	Trips int
	// Capacity bounds the items that wait or are out.
	Capacity int
	// MaxWeight bounds what they weigh together, by Weigh; one item alone may be heavier. Zero: no
	// bound.
	MaxWeight int
	// Weigh returns the weight of an item, always the same.
	Weigh func(item T) int
	// Take returns how many of the waiting items, from the first, go on the next trip: at least 1.
	// It may put them into another order.
	Take func(waiting []T) int
	// Do carries a batch out. It returns when the items are dealt with, whatever came of them.
	Do func(batch []T)
}

// Queue collects items and carries them out in batches, in the order they came unless Take has
// another one.
type Queue[T any] struct {
	p Params[T]

	mu      sync.Mutex
	waiting []T
	trips   int
	// held counts the items that wait or are out, weight is theirs.
	held, weight int
}

// NewQueue returns an empty queue.
func NewQueue[T any](p Params[T]) *Queue[T] { return &Queue[T]{p: p} }

// Add queues items, all of them or, when there is no room, none.
func (q *Queue[T]) Add(items ...T) bool {
	added := q.weigh(items)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held+len(items) > q.p.Capacity || q.held > 0 && q.p.MaxWeight > 0 && q.weight+added > q.p.MaxWeight {
		return false
	}
	q.held, q.weight = q.held+len(items), q.weight+added
	q.waiting = append(q.waiting, items...)
	if q.trips < q.p.Trips {
		q.trips++
		go q.work()
	}
	return true
}

// Held returns how many items wait or are out.
func (q *Queue[T]) Held() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.held
}

func (q *Queue[T]) weigh(items []T) int {
	if q.p.MaxWeight == 0 {
		return 0
	}
	sum := 0
	for _, item := range items {
		sum += q.p.Weigh(item)
	}
	return sum
}

func (q *Queue[T]) work() {
	for {
		// Those whom the trip before answered are about to come again: let them, so that this one
		// is not half empty.
		runtime.Gosched()
		batch := q.next()
		if batch == nil {
			return
		}
		q.p.Do(batch)
		done := q.weigh(batch)
		q.mu.Lock()
		q.held, q.weight = q.held-len(batch), q.weight-done
		q.mu.Unlock()
	}
}

// next returns the next batch; nil ends the trip.
func (q *Queue[T]) next() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		q.trips--
		return nil
	}
	n := max(1, q.p.Take(q.waiting))
	batch := q.waiting[:n:n]
	q.waiting = q.waiting[n:]
	if len(q.waiting) == 0 {
		q.waiting = nil // The batch keeps the memory; a fresh one does not grow behind it for ever.
	}
	return batch
}
