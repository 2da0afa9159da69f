package konsul

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// DefaultLockTTL is how long a lock outlives a holder that is silent.
const DefaultLockTTL = 15 * time.Second

// LockClient takes locks.
type LockClient struct {
	api    registryv1.LockServiceClient
	leases *LeaseClient
	cfg    Config
}

// LockOptions says how to take a lock.
type LockOptions struct {
	// TTL of the lease the lock is held by; 0: DefaultLockTTL.
	TTL time.Duration
	// Wait is how long to wait for the lock, at most 10m; 0: not at all.
	Wait time.Duration
	// Delay keeps others out for so long when the lock is lost; nil: the registry's setting.
	Delay *time.Duration
	// Holder is shown to others.
	Holder string
	// Datacenter of the lock; empty: the client's.
	Datacenter string
}

// Lock is a lock that is held, by a lease that is kept alive in the background.
type Lock struct {
	// Name is the lock's.
	Name string
	// Token is higher than that of any holder before. Whatever the lock protects can tell by it who
	// is late.
	Token uint64

	client     *LockClient
	lease      *Lease
	datacenter string
}

// Acquire takes a lock. Aborted when another one has it still after opts.Wait. opts may be nil.
func (c *LockClient) Acquire(ctx context.Context, name string, opts *LockOptions) (*Lock, error) {
	if opts == nil {
		opts = &LockOptions{}
	}
	ttl := opts.TTL
	if ttl == 0 {
		ttl = DefaultLockTTL
	}
	lease, err := c.leases.Keep(ctx, ttl, &LeaseOptions{Name: name, Datacenter: opts.Datacenter})
	if err != nil {
		return nil, err
	}
	request := &registryv1.AcquireLockRequest{
		Name: name, Lease: lease.ID, Wait: waitProto(opts.Wait), Holder: opts.Holder, Datacenter: c.cfg.datacenter(opts.Datacenter),
	}
	if opts.Delay != nil {
		request.Delay = durationpb.New(*opts.Delay)
	}
	answer, err := c.api.Acquire(ctx, request)
	if err != nil {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.Timeout)
		defer cancel()
		return nil, errors.Join(err, lease.Close(after))
	}
	return &Lock{Name: answer.GetLock().GetName(), Token: answer.GetLock().GetToken(), client: c, lease: lease, datacenter: opts.Datacenter}, nil
}

// Fence lets writes happen only while the lock is held.
func (l *Lock) Fence() *Fence { return &Fence{Lock: l.Name, Token: l.Token} }

// Lost is closed when the lock is lost, or may be: what it was for must stop. Err says why.
func (l *Lock) Lost() <-chan struct{} { return l.lease.Lost() }

// Err returns why the lock was lost; nil while it is not.
func (l *Lock) Err() error { return l.lease.Err() }

// Release gives the lock back; others need not wait for its delay then.
func (l *Lock) Release(ctx context.Context) error {
	_, err := l.client.api.Release(ctx, &registryv1.ReleaseLockRequest{
		Name: l.Name, Token: l.Token, Datacenter: l.client.cfg.datacenter(l.datacenter), RequestId: requestID(ctx),
	})
	return errors.Join(err, l.lease.Close(ctx))
}
