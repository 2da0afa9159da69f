// Package heartbeat tells the registry again and again that this node lives.
//
// A beat goes every third of the TTL, a little sooner by jitter, so that two may be lost before the
// node counts as dead. After a failure it tries again sooner, with backoff, and for ever. It
// registers nothing: a registry that expects no heartbeats of this node is somebody else's to mend.
// One goroutine runs it; Beat is safe for concurrent use.
package heartbeat

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/obs"
)

// share is how many beats fit into a TTL.
const share = 3

// Registry is what a heart asks of the registry.
type Registry interface {
	// Heartbeat says that a node lives. expected is false when the registry expects no heartbeats
	// of it.
	Heartbeat(ctx context.Context, node string) (expected bool, err error)
}

// Params is what a heart is made of.
type Params struct {
	Registry Registry
	Node     string
	// TTL is how long the registry waits for a heartbeat.
	TTL time.Duration
	// CallTimeout bounds one beat; it never takes longer than the time between two.
	CallTimeout time.Duration
	// RetryMin and RetryMax bound the waits after a failure, which are never longer than those
	// after a success.
	RetryMin, RetryMax time.Duration
	// Unexpected is told that the registry expects no heartbeats: the node is gone, or others
	// registered it without.
	Unexpected func()
	Log        *slog.Logger
	Metrics    *Metrics
}

// Heart is made by New.
type Heart struct {
	params Params
	soon   chan struct{} // holds at most one request to beat
	last   string        // how the last beat ended, for the log
}

// New returns a heart that does not beat until Run.
func New(p Params) *Heart {
	return &Heart{params: p, soon: make(chan struct{}, 1), last: resultOK}
}

// Beat asks for a beat soon: the registry is there, and may take the node for dead.
func (h *Heart) Beat() {
	select {
	case h.soon <- struct{}{}:
	default: // already asked for
	}
}

// Run beats until ctx ends. The first beat comes when Beat asks for it, at the latest after a third
// of the TTL.
func (h *Heart) Run(ctx context.Context) error {
	every := h.params.TTL / share
	retry := backoff.New(min(h.params.RetryMin, every), min(h.params.RetryMax, every))
	result := resultOK
	for {
		wait, soon := every-rand.N(every/10+1), h.soon
		switch result {
		case resultOK:
			retry.Reset()
		case resultUnexpected:
			// Whoever registers the node asks for a beat, which a registry that still says no must
			// not turn into a storm.
			soon = nil
			wait = retry.Next()
		default:
			wait = retry.Next()
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-soon:
		case <-timer.C:
		}
		timer.Stop()
		result = h.beat(ctx, min(h.params.CallTimeout, every))
	}
}

// beat sends one heartbeat and says how it ended.
func (h *Heart) beat(ctx context.Context, timeout time.Duration) string {
	call, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	expected, err := h.params.Registry.Heartbeat(call, h.params.Node)
	if ctx.Err() != nil {
		return resultOK // the end interrupted it, which says nothing about the registry
	}
	result := resultOK
	switch {
	case err != nil:
		result = resultFailed
	case !expected:
		result = resultUnexpected
		h.params.Unexpected()
	}
	h.params.Metrics.beat(result)
	h.note(ctx, result, err)
	return result
}

// note logs how a beat ended when the one before ended otherwise.
func (h *Heart) note(ctx context.Context, result string, err error) {
	before := h.last
	h.last = result
	if before == result {
		return
	}
	switch result {
	case resultFailed:
		h.params.Log.WarnContext(ctx, "heartbeat failed; trying again", "ttl", h.params.TTL, obs.KeyError, err)
	case resultUnexpected:
		h.params.Log.WarnContext(ctx, "the registry expects no heartbeats of this node; registering it again")
	default:
		h.params.Log.InfoContext(ctx, "heartbeats arrive")
	}
}
