package api

import (
	"cmp"
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/changes"
	"konsul.dev/services/registry/internal/watch"
)

const (
	defaultWait = 5 * time.Minute
	longestWait = 10 * time.Minute
	// LeaderCheck is how soon a blocked reader notices that its server leads no more.
	LeaderCheck = time.Second
)

// Blocking is the part of a read request that says what to wait for.
type Blocking interface {
	GetIndex() uint64
	GetWait() *durationpb.Duration
	GetReadMode() registryv1.ReadMode
}

// Block waits until changed returns an index above the request's, or its wait has passed. It
// subscribes before it asks, so no wake-up is lost. When it returns nil the caller reads the state.
func (c *Core) Block(ctx context.Context, req Blocking, filters []watch.Filter, changed func(since uint64) (uint64, error)) error {
	since := req.GetIndex()
	if r, ok := req.(Dated); ok && since > 0 && r.GetAtIndex() > 0 {
		return fault.Invalid("at_index", "cannot be used together with index").WithRemedy("leave out index: the past does not change")
	}
	if since == 0 || since < c.Store.Watermark() {
		return nil // What changed so long ago is forgotten: answer the state.
	}
	wait, err := WaitOf(req.GetWait())
	if err != nil {
		return err
	}
	release, err := c.Quotas.BlockedRead(rpc.CallerFrom(ctx).Accessor)
	if err != nil {
		return err
	}
	defer release()
	sub := c.Hub.Listen(filters...)
	defer sub.Close()
	c.Blocked.Inc()
	defer c.Blocked.Dec()
	// The jitter keeps readers that were woken together from coming back together.
	timer := c.Clock.After(wait + rand.N(wait/16+1))
	lease := time.NewTicker(LeaderCheck)
	defer lease.Stop()
	for {
		index, err := changed(since)
		// A restore moves the watermark past whoever waits: what it took away shows in no row.
		if err != nil || index > since || since < c.Store.Watermark() {
			return cmp.Or(err, c.StillKnown(ctx))
		}
		select {
		case <-sub.Wake():
		case <-timer:
			return cmp.Or(c.stillLeads(ctx, req), c.StillKnown(ctx))
		case <-lease.C:
			if err := c.stillLeads(ctx, req); err != nil {
				return err
			}
		case <-c.Draining:
			return changes.Draining()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// stillLeads refuses to answer a read for the cluster after the leadership is gone.
func (c *Core) stillLeads(ctx context.Context, req Blocking) error {
	if req.GetReadMode() == registryv1.ReadMode_READ_MODE_STALE {
		return nil
	}
	return c.Node.EnsureLease(ctx)
}

// StillKnown refuses to answer a call whose token was revoked or has expired while it waited.
func (c *Core) StillKnown(ctx context.Context) error {
	_, err := c.Tokens.Refresh(acl.From(ctx))
	return err
}

// WaitOf returns how long a request wants to wait.
func WaitOf(d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return defaultWait, nil
	}
	wait := d.AsDuration()
	if !d.IsValid() || wait < 0 || wait > longestWait {
		return 0, fault.Invalid("wait", "%v is not between 0 and %v", wait, longestWait)
	}
	return wait, nil
}
