// Package lifecycle runs a service's background loops and ends them together.
//
// A loop that fails is an event, not a log line: the group tells its owner once, who ends the
// process with a non-zero exit code, so that a half-dead service never looks alive.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// Group is a set of loops with one end. Safe for concurrent use.
type Group struct {
	ctx    context.Context
	cancel context.CancelFunc
	log    *slog.Logger
	onFail func(error)
	failed sync.Once
	wg     sync.WaitGroup
}

// NewGroup returns a group that calls onFail, once, with the first error a loop returns before
// Stop.
func NewGroup(log *slog.Logger, onFail func(error)) *Group {
	ctx, cancel := context.WithCancel(context.Background())
	return &Group{ctx: ctx, cancel: cancel, log: log, onFail: onFail}
}

// Go starts a loop. Its context ends at Stop; returning nil or the context's error is a clean end.
// A panic counts as an error.
func (g *Group) Go(name string, loop func(context.Context) error) {
	g.wg.Go(func() {
		err := guarded(g.ctx, loop)
		if err == nil || g.ctx.Err() != nil || errors.Is(err, context.Canceled) {
			return
		}
		g.failed.Do(func() {
			g.log.Error("background loop failed; stopping", "loop", name, "error", err)
			g.onFail(fmt.Errorf("%s: %w", name, err))
		})
	})
}

// Context ends when Stop is called.
func (g *Group) Context() context.Context { return g.ctx }

// Stop ends every loop and waits for them, at most until ctx ends.
func (g *Group) Stop(ctx context.Context) error {
	g.cancel()
	done := make(chan struct{})
	go func() {
		g.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for background loops: %w", context.Cause(ctx))
	}
}

func guarded(ctx context.Context, loop func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return loop(ctx)
}
