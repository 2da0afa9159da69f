package process

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"
)

// Group is the processes of one datacenter, in the order in which they start. They stop in the
// reverse order.
type Group struct {
	spawner *Spawner
	onExit  func(*Process)

	mu      sync.Mutex
	members []*Process
}

// NewGroup returns an empty group; onExit hears of every member that ends.
func NewGroup(spawner *Spawner, onExit func(*Process)) *Group {
	return &Group{spawner: spawner, onExit: onExit}
}

// Start starts the specs in order. After an error the members already started keep running.
func (g *Group) Start(specs []Spec) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, spec := range specs {
		p, err := g.spawner.Start(spec, g.onExit)
		if err != nil {
			return err
		}
		g.members = append(g.members, p)
	}
	return nil
}

// Stop ends every member gracefully, the last started first, and forgets them.
func (g *Group) Stop(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var errs []error
	for i := len(g.members) - 1; i >= 0; i-- {
		errs = append(errs, g.members[i].Stop(ctx))
	}
	g.members = nil
	return errors.Join(errs...)
}

// Reload tells every member to take in what changed.
func (g *Group) Reload() error {
	var errs []error
	for _, p := range g.Members() {
		errs = append(errs, p.Reload())
	}
	return errors.Join(errs...)
}

// Kill ends every member at once and forgets them.
func (g *Group) Kill() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var errs []error
	for _, p := range g.members {
		// All are signalled before any is waited for, as a power cut would.
		p.markEnding()
		errs = append(errs, p.signal(syscall.SIGKILL))
	}
	for _, p := range g.members {
		errs = append(errs, p.Kill())
	}
	g.members = nil
	return errors.Join(errs...)
}

// Members returns the processes of the last Start, running or not.
func (g *Group) Members() []*Process {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]*Process(nil), g.members...)
}

// Whole reports whether there are members and all of them run, and still do after patience: a
// process that was killed a moment ago looks alive until its parent has heard of it.
func (g *Group) Whole(patience time.Duration) bool {
	members := g.Members()
	if len(members) == 0 || g.Running() < len(members) {
		return false
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	// The first member stands for all in the wait; the count sees the others.
	select {
	case <-members[0].Done():
	case <-timer.C:
	}
	return g.Running() == len(members)
}

// Running says how many members run.
func (g *Group) Running() int {
	n := 0
	for _, p := range g.Members() {
		if p.Running() {
			n++
		}
	}
	return n
}
