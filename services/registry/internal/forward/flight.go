package forward

import (
	"context"
	"sync"
	"time"

	"konsul.dev/pkg/fault"
)

// errLeaderMoved ends a call to a server that leads no more. It is repeated at the next leader; a
// caller sees it only when there is none in time.
var errLeaderMoved = fault.New(fault.Unavailable, fault.ReasonNoLeader, "the leader changed while it answered").
	WithRetryAfter(100 * time.Millisecond).WithRemedy("ask again")

// flights are the calls that wait for a leader on another server. A leader that is paused answers
// nothing and breaks no connection: its calls end when a new one is known.
type flights struct {
	mu     *sync.Mutex
	byPeer map[string]map[*flight]struct{}
}

type flight struct{ cancel context.CancelCauseFunc }

func newFlights() flights {
	return flights{mu: &sync.Mutex{}, byPeer: map[string]map[*flight]struct{}{}}
}

func (f flights) begin(ctx context.Context, peer string) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	mine := &flight{cancel}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byPeer[peer] == nil {
		f.byPeer[peer] = map[*flight]struct{}{}
	}
	f.byPeer[peer][mine] = struct{}{}
	return ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.byPeer[peer], mine)
		cancel(nil)
	}
}

// strand ends the calls to every server but the leader.
func (f flights) strand(leader string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for peer, calls := range f.byPeer {
		if peer == leader {
			continue
		}
		for c := range calls {
			c.cancel(errLeaderMoved)
		}
	}
}

const leaderPoll = 50 * time.Millisecond

// Run follows the leader until ctx ends.
func (r *Router) Run(ctx context.Context) error {
	ticker := time.NewTicker(leaderPoll)
	defer ticker.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		leader := r.Leadership.LeaderID()
		if leader != last {
			r.flights.strand(leader)
			last = leader
		}
	}
}
