package robustness_test

import (
	"context"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/tests/robustness/arena"
	"konsul.dev/tests/robustness/history"
)

const (
	lockers  = 3
	lockName = "local-lock"
	// lockTTL is the shortest that the registry grants.
	lockTTL = time.Second
)

// contend takes the one lock again and again, each time with a lease of its own, until ctx ends.
func (c *caller) contend(ctx context.Context) {
	for ctx.Err() == nil {
		c.hold(ctx)
		c.wait(ctx, 20)
	}
}

// hold takes the lock once. Some holders give it back; others let it go with their lease and write
// on with a token that may have been replaced, which must do nothing.
func (c *caller) hold(ctx context.Context) {
	place := c.place()
	sure := c.recorder.Now() + lockTTL // The lease's time begins later.
	var lease string
	if c.try(ctx, func(ctx context.Context) error {
		resp, err := c.cluster.Client(place).Lease.Grant(ctx, &registryv1.GrantLeaseRequest{
			Name: lockName, Ttl: durationpb.New(lockTTL), RequestId: uuid.NewString(),
		})
		lease = resp.GetLease().GetId()
		return err
	}) != nil {
		return
	}
	h := history.Hold{Client: c.number, Name: lockName, Call: c.recorder.Now(), Until: sure}
	if c.try(ctx, func(ctx context.Context) error {
		resp, err := c.cluster.Client(place).Lock.Acquire(ctx, &registryv1.AcquireLockRequest{
			Name: lockName, Lease: lease, Delay: durationpb.New(0), Wait: durationpb.New(callLimit / 2),
		})
		h.Token = resp.GetLock().GetToken()
		return err
	}) != nil {
		c.revoke(ctx, lease)
		return
	}
	h.Granted = c.recorder.Now()
	forget := c.chance.IntN(3) == 0
	for range 3 {
		c.fence(ctx, &h)
		c.wait(ctx, 30)
	}
	if forget {
		c.wait(ctx, int((lockTTL + lockTTL/2).Milliseconds()))
		c.fence(ctx, &h)
	} else {
		h.Until = min(h.Until, c.recorder.Now())
		_ = c.try(ctx, func(ctx context.Context) error {
			_, err := c.cluster.Client(c.place()).Lock.Release(ctx, &registryv1.ReleaseLockRequest{Name: lockName, Token: h.Token, RequestId: uuid.NewString()})
			return err
		})
	}
	c.recorder.Held(h)
}

// revoke gives up a lease that may hold the lock all the same: nobody need wait for a lease that
// nobody keeps, and each new leader would let it live for another TTL.
func (c *caller) revoke(ctx context.Context, lease string) {
	req := &registryv1.RevokeLeaseRequest{Id: lease, RequestId: uuid.NewString()}
	for ctx.Err() == nil {
		err := c.try(ctx, func(ctx context.Context) error {
			_, err := c.cluster.Client(c.place()).Lease.Revoke(ctx, req)
			return err
		})
		if f, ok := fault.As(err); err == nil || ok && f.Code() == fault.NotFound {
			return
		}
		c.wait(ctx, 20)
	}
}

// fence writes on the condition that the lock is held with the token, and records what went ahead.
func (c *caller) fence(ctx context.Context, h *history.Hold) {
	_ = c.try(ctx, func(ctx context.Context) error {
		resp, err := c.cluster.Client(c.place()).KV.Txn(ctx, &registryv1.TxnRequest{
			Compare:   []*registryv1.Compare{{With: &registryv1.Compare_Held{Held: &registryv1.Fence{Lock: lockName, Token: h.Token}}}},
			Success:   []*registryv1.TxnOperation{{Operation: &registryv1.TxnOperation_Set{Set: &registryv1.TxnSet{Key: "fenced/" + lockName, Value: []byte{1}}}}},
			RequestId: uuid.NewString(),
		})
		if err == nil && resp.GetSucceeded() {
			h.Fenced = append(h.Fenced, resp.GetMeta().GetIndex())
		}
		return err
	})
}

func (c *caller) try(ctx context.Context, call func(context.Context) error) error {
	limited, cancel := context.WithTimeout(arena.Authorize(ctx), callLimit)
	defer cancel()
	return call(limited)
}

func (c *caller) wait(ctx context.Context, milliseconds int) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(milliseconds) * time.Millisecond):
	}
}
