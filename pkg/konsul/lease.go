package konsul

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
)

// ReasonLeaseLost is the reason of a lease that could not be kept alive in time.
const ReasonLeaseLost = "LEASE_LOST"

// LeaseClient promises the registry to be there.
type LeaseClient struct {
	api registryv1.LeaseServiceClient
	cfg Config
}

// LeaseOptions says what a lease is for.
type LeaseOptions struct {
	// ID to use; empty: the registry chooses.
	ID string
	// Name is a local key: whoever may write it may use the lease.
	Name string
	// Datacenter of the lease; empty: the client's.
	Datacenter string
}

// Grant makes a lease that ends when it was not kept alive for ttl, and returns its id. opts may be
// nil.
func (c *LeaseClient) Grant(ctx context.Context, ttl time.Duration, opts *LeaseOptions) (string, error) {
	if opts == nil {
		opts = &LeaseOptions{}
	}
	answer, err := c.api.Grant(ctx, &registryv1.GrantLeaseRequest{
		Id: opts.ID, Name: opts.Name, Ttl: durationpb.New(ttl), Datacenter: c.cfg.datacenter(opts.Datacenter), RequestId: requestID(ctx),
	})
	return answer.GetLease().GetId(), err
}

// KeepAlive begins a lease's time anew. NotFound when it has ended.
func (c *LeaseClient) KeepAlive(ctx context.Context, id, datacenter string) error {
	_, err := c.api.KeepAlive(ctx, &registryv1.KeepLeaseAliveRequest{Id: id, Datacenter: c.cfg.datacenter(datacenter)})
	return err
}

// Revoke ends a lease: its keys are deleted, its locks are lost.
func (c *LeaseClient) Revoke(ctx context.Context, id, datacenter string) error {
	_, err := c.api.Revoke(ctx, &registryv1.RevokeLeaseRequest{Id: id, Datacenter: c.cfg.datacenter(datacenter), RequestId: requestID(ctx)})
	return err
}

// Lease is one that is kept alive in the background. Safe for concurrent use.
type Lease struct {
	// ID is the lease's.
	ID string

	client     *LeaseClient
	datacenter string
	ttl        time.Duration
	cancel     context.CancelFunc
	lost       chan struct{}
	stopped    chan struct{}
	once       sync.Once
	err        error
}

// Keep grants a lease and keeps it alive until it is lost or Close is called. ctx is for granting
// it alone.
func (c *LeaseClient) Keep(ctx context.Context, ttl time.Duration, opts *LeaseOptions) (*Lease, error) {
	if opts == nil {
		opts = &LeaseOptions{}
	}
	granted := time.Now()
	id, err := c.Grant(ctx, ttl, opts)
	if err != nil {
		return nil, err
	}
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l := &Lease{ID: id, client: c, datacenter: opts.Datacenter, ttl: ttl, cancel: cancel, lost: make(chan struct{}), stopped: make(chan struct{})}
	go l.keep(background, granted)
	return l, nil
}

// Lost is closed when the lease has ended, or may have: what it was for must stop. Err says why.
func (l *Lease) Lost() <-chan struct{} { return l.lost }

// Err returns why the lease was lost; nil while it is not.
func (l *Lease) Err() error {
	select {
	case <-l.lost:
		return l.err
	default:
		return nil
	}
}

// Close ends the lease. It answers why that could not be done; the lease then ends by itself.
func (l *Lease) Close(ctx context.Context) error {
	l.cancel()
	<-l.stopped
	if l.Err() != nil {
		return nil // It has ended already.
	}
	err := l.client.Revoke(ctx, l.ID, l.datacenter)
	if fault.CodeOf(err) == fault.NotFound {
		return nil
	}
	return err
}

// keep calls a third of the TTL after each success. The lease counts as lost a TTL after the last
// call that succeeded was made: by then the registry may have ended it.
func (l *Lease) keep(ctx context.Context, alive time.Time) {
	defer close(l.stopped)
	pause := l.ttl / 3
	for {
		timer := time.NewTimer(min(pause, time.Until(alive.Add(l.ttl))))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		asked := time.Now()
		call, cancel := context.WithDeadline(ctx, alive.Add(l.ttl))
		err := l.client.KeepAlive(call, l.ID, l.datacenter)
		cancel()
		switch {
		case err == nil:
			alive, pause = asked, l.ttl/3
		case ctx.Err() != nil:
			return
		case fault.CodeOf(err) == fault.NotFound:
			l.lose(err)
			return
		case !time.Now().Before(alive.Add(l.ttl)):
			l.lose(fault.New(fault.Unavailable, ReasonLeaseLost, "lease %s was not kept alive for %v", l.ID, l.ttl).Wrap(err))
			return
		default:
			pause = l.ttl / 10
		}
	}
}

func (l *Lease) lose(err error) {
	l.once.Do(func() {
		l.err = err
		close(l.lost)
	})
}
