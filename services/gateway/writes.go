package gateway

import (
	"context"
	"sync/atomic"
	"time"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
	"konsul.dev/services/gateway/internal/restedge"
)

const (
	writesEvery = time.Second
	// writesGrace is how long no server may say that it has a leader: longer than an election.
	writesGrace = 3 * time.Second
)

// writes knows whether the registry can commit, by asking one server after the other.
type writes struct {
	registry healthv1.HealthClient
	clock    clock.Clock
	// last is when a server last said so, in nanoseconds since 1970; refused whether one said the
	// contrary since then.
	last    atomic.Int64
	refused atomic.Bool
}

// run asks until ctx ends.
func (w *writes) run(ctx context.Context) error {
	for {
		w.ask(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-w.clock.After(writesEvery):
		}
	}
}

func (w *writes) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, writesGrace)
	defer cancel()
	resp, err := w.registry.Check(ctx, &healthv1.HealthCheckRequest{Service: rpc.HealthWrites})
	switch {
	case err == nil && resp.GetStatus() == healthv1.HealthCheckResponse_SERVING, fault.CodeOf(err) == fault.NotFound: // An older one does not say.
		w.last.Store(w.clock.Now().UnixNano())
		w.refused.Store(false)
	case err == nil:
		w.refused.Store(true)
	}
}

// why returns the reason why nothing can be written; empty: it can.
func (w *writes) why() string {
	if w.clock.Now().Sub(time.Unix(0, w.last.Load())) < writesGrace {
		return ""
	}
	if w.refused.Load() {
		return fault.ReasonNoLeader
	}
	return restedge.ReasonBackendUnreachable
}
