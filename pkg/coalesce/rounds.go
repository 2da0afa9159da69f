package coalesce

import (
	"context"
	"runtime"
	"sync"
)

// Rounds lets callers share the answer of a question whose answer must be newer than the call. The
// zero value is ready.
type Rounds[T any] struct {
	mu      sync.Mutex
	running bool
	next    *round[T]
}

type round[T any] struct {
	done   chan struct{}
	answer T
	err    error
}

// Join returns what ask answers in a round that begins after the call. Only one round runs at a
// time; whoever comes meanwhile shares the next. ask must be the same for all callers and must
// return.
func (r *Rounds[T]) Join(ctx context.Context, ask func() (T, error)) (T, error) {
	mine := r.enter(ask)
	select {
	case <-mine.done:
		return mine.answer, mine.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

func (r *Rounds[T]) enter(ask func() (T, error)) *round[T] {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == nil {
		r.next = &round[T]{done: make(chan struct{})}
	}
	mine := r.next
	if !r.running {
		r.running = true
		go r.run(ask)
	}
	return mine
}

func (r *Rounds[T]) run(ask func() (T, error)) {
	for {
		// Those whom the round before answered are about to come again: let them, so that this one
		// serves more.
		runtime.Gosched()
		r.mu.Lock()
		current := r.next
		r.next = nil
		if current == nil {
			r.running = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		current.answer, current.err = ask()
		close(current.done)
	}
}
