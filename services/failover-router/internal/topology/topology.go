// Package topology knows the federation's datacenters as wan-gossip sees them: which are there,
// which gossip has lost, how far each is.
//
// It follows wan-gossip's list by a stream. While gossip is away it goes on with what it knew last:
// a datacenter does not vanish because somebody stopped talking about it. Safe for concurrent use.
package topology

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/obs"
	"konsul.dev/services/failover-router/internal/verdict"
)

const (
	heartbeat = 2 * time.Second
	// silence is how long a stream may say nothing before it is opened anew: a paused wan-gossip
	// closes nothing.
	silence  = 3 * heartbeat
	retryMin = 100 * time.Millisecond
	retryMax = 2 * time.Second
)

// Topology is the current list of datacenters.
type Topology struct {
	gossip wangossipv1.DatacenterServiceClient
	log    *slog.Logger

	mu      sync.Mutex
	list    []verdict.Datacenter
	known   bool
	changed chan struct{} // closed and replaced when a datacenter appears, goes, fails or returns
}

// New returns a topology that knows nothing until Run has heard from gossip.
func New(gossip wangossipv1.DatacenterServiceClient, log *slog.Logger) *Topology {
	return &Topology{gossip: gossip, log: log, changed: make(chan struct{})}
}

// Current returns the datacenters, and a channel that is closed when they change in more than
// distance. The caller must not change the slice.
func (t *Topology) Current() ([]verdict.Datacenter, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.list, t.changed
}

// Known reports whether gossip has ever been heard.
func (t *Topology) Known() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known
}

// Run follows gossip until ctx ends.
func (t *Topology) Run(ctx context.Context) error {
	pause := backoff.New(retryMin, retryMax)
	heard := true
	for {
		err := t.follow(ctx, func() {
			pause.Reset()
			if !heard {
				t.log.Info("gossip is heard again")
			}
			heard = true
		})
		if ctx.Err() != nil {
			return nil
		}
		if heard {
			t.log.Warn("gossip is away; going on with what it said last", obs.KeyError, err)
		}
		heard = false
		if pause.Wait(ctx) != nil {
			return nil
		}
	}
}

var errSilent = errors.New("gossip stream fell silent")

// follow reads one stream to its end and calls alive after each message.
func (t *Topology) follow(ctx context.Context, alive func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer watchdog.Stop()
	stream, err := t.gossip.WatchDatacenters(ctx, &wangossipv1.WatchDatacentersRequest{Heartbeat: durationpb.New(heartbeat)})
	if err != nil {
		return err
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		watchdog.Reset(silence)
		t.set(convert(message.GetDatacenters()))
		alive()
	}
}

func convert(in []*wangossipv1.Datacenter) []verdict.Datacenter {
	out := make([]verdict.Datacenter, len(in))
	for i, dc := range in {
		out[i] = verdict.Datacenter{
			Name: dc.GetName(), Down: dc.GetState() != wangossipv1.DatacenterState_DATACENTER_STATE_ALIVE,
			RoundTrip: dc.GetRoundTrip().AsDuration(), Measured: dc.GetRoundTrip() != nil,
		}
	}
	return out
}

func (t *Topology) set(list []verdict.Datacenter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	same := t.known && slices.EqualFunc(t.list, list, func(a, b verdict.Datacenter) bool {
		return a.Name == b.Name && a.Down == b.Down && a.Measured == b.Measured
	})
	t.list, t.known = list, true
	if !same {
		close(t.changed)
		t.changed = make(chan struct{})
	}
}
