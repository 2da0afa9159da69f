package load

import (
	"context"
	"fmt"
	"sync"
	"time"

	"konsul.dev/tests/bench/target"
)

const (
	// attemptEvery is how often a write is tried where none went through yet. It does not wait for
	// the one before, which may be lost with a leader, but for at most attemptLimit; attemptsOut,
	// which that leaves room for, is the bound.
	attemptEvery = 10 * time.Millisecond
	attemptLimit = time.Second
	attemptsOut  = 2 * int(attemptLimit/attemptEvery)
)

// FirstWrites returns when a first write went through on each of n servers, whichever they are.
func FirstWrites(ctx context.Context, access target.Access, n int) ([]time.Time, error) {
	p, err := NewProbe(access)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return p.FirstWrites(ctx, n)
}

// Probe is connections to a target whose servers may come and go.
type Probe struct{ driver *driver }

// NewProbe begins to connect. Close it when done.
func NewProbe(access target.Access) (*Probe, error) {
	d, err := open(access, Put, 0)
	if err != nil {
		return nil, err
	}
	for _, conn := range d.conns {
		conn.Connect()
	}
	return &Probe{d}, nil
}

// Close ends the connections.
func (p *Probe) Close() { p.driver.close() }

// FirstWrites returns when, from now on, a first write went through on each of n servers.
func (p *Probe) FirstWrites(ctx context.Context, n int) ([]time.Time, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a := attempts{op: p.driver.op, served: make(chan time.Time, len(p.driver.conns))}
	for server := range p.driver.conns {
		go a.run(ctx, server)
	}
	var times []time.Time
	for len(times) < n {
		select {
		case t := <-a.served:
			times = append(times, t)
		case <-ctx.Done():
			return nil, fmt.Errorf("%d of %d servers took a write; one of the others said: %w", len(times), n, a.lastError())
		}
	}
	return times, nil
}

// attempts tries writes until they go through.
type attempts struct {
	op operation
	// served receives when each server first took a write.
	served chan time.Time

	mu   sync.Mutex
	last error
}

// run tries one server until it took a write.
func (a *attempts) run(ctx context.Context, server int) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var once sync.Once
	out := make(chan struct{}, attemptsOut)
	ticker := time.NewTicker(attemptEvery)
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case out <- struct{}{}:
			go func() {
				defer func() { <-out }()
				if a.try(ctx, server) {
					once.Do(func() { a.served <- time.Now() })
					cancel()
				}
			}()
		default:
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

func (a *attempts) try(ctx context.Context, server int) bool {
	ctx, cancel := context.WithTimeout(ctx, attemptLimit)
	defer cancel()
	err := a.op(ctx, server, 0)
	if err != nil && ctx.Err() == nil {
		a.mu.Lock()
		a.last = err
		a.mu.Unlock()
	}
	return err == nil
}

func (a *attempts) lastError() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last == nil {
		return context.DeadlineExceeded
	}
	return a.last
}
