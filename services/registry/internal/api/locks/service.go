package locks

import (
	"cmp"
	"context"
	"time"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/api"
	"konsul.dev/services/registry/internal/changes"
	"konsul.dev/services/registry/internal/kv"
	"konsul.dev/services/registry/internal/lock"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/watch"
)

// Service is the LockService.
type Service struct {
	registryv1.UnimplementedLockServiceServer
	*api.Core
	Writer lock.Writer
	Turns  *lock.Turns
}

// NeedsOfLock returns what a call about a lock takes: as much as the local key of that name does.
func NeedsOfLock(name string, access acl.Access) []acl.Need {
	if bare, err := kv.LockName("name", name); err == nil {
		name = bare
	}
	return []acl.Need{{Resource: acl.KV, Name: record.LocalPrefix + name, Access: access}}
}

// Acquire gives a lock to a lease, at once or when it is free.
func (s *Service) Acquire(ctx context.Context, req *registryv1.AcquireLockRequest) (*registryv1.AcquireLockResponse, error) {
	_, name, err := s.Writer.Acquire(req)
	if err != nil {
		return nil, err
	}
	if req.GetWait() == nil || req.GetWait().AsDuration() == 0 {
		return s.attempt(ctx, req, name)
	}
	wait, err := api.WaitOf(req.GetWait())
	if err != nil {
		return nil, err
	}
	release, err := s.Quotas.BlockedRead(rpc.CallerFrom(ctx).Accessor)
	if err != nil {
		return nil, err
	}
	defer release()
	w := lockWait{Service: s, req: req, name: name, end: s.Clock.After(wait)}
	called, leave := s.Turns.Join(name)
	defer leave()
	if err := w.until(ctx, called, nil); err != nil {
		return nil, err
	}
	return w.acquire(ctx)
}

// attempt asks for the lock once.
func (s *Service) attempt(ctx context.Context, req *registryv1.AcquireLockRequest, name string) (*registryv1.AcquireLockResponse, error) {
	cmd, _, err := s.Writer.Acquire(req)
	if err != nil {
		return nil, err
	}
	result, err := s.Propose(ctx, cmd)
	if err != nil {
		return nil, err
	}
	held, err := lock.Acquired(result, name)
	return &registryv1.AcquireLockResponse{Lock: held, Meta: s.WriteMeta(result.GetIndex())}, err
}

// lockWait is a caller whose turn it is, or who waits for it.
type lockWait struct {
	*Service
	req  *registryv1.AcquireLockRequest
	name string
	end  <-chan time.Time
}

// acquire asks whenever the lock seems to be free.
func (w *lockWait) acquire(ctx context.Context) (*registryv1.AcquireLockResponse, error) {
	sub := w.Hub.Listen(watch.Filter{Table: registryv1.Table_TABLE_LOCK, Prefix: w.name, Exact: true})
	defer sub.Close()
	for {
		freeIn, err := w.look()
		if err != nil {
			return nil, err
		}
		if freeIn <= 0 {
			resp, err := w.attempt(ctx, w.req, w.name)
			if fault.ReasonOf(err) != lock.ReasonHeld {
				return resp, err
			}
			freeIn = lockRetry // Somebody was faster, or the leader's clock is behind the one that set the delay.
		}
		if err := w.until(ctx, sub.Wake(), w.Clock.After(freeIn)); err != nil {
			return nil, err
		}
	}
}

const (
	// lockRetry is how soon a lock is asked for again that should have been free.
	lockRetry = 100 * time.Millisecond
	// heldFor is for when only its holder knows when a lock will be free: its row says so.
	heldFor = time.Hour
)

// look returns how long the lock is not to be had.
func (w *lockWait) look() (time.Duration, error) {
	var held *registryv1.Lock
	err := w.Store.View(func(r record.Reader) (err error) {
		held, err = lock.Get(r, w.name)
		return err
	})
	switch {
	case err != nil || held == nil || held.GetLease() == w.req.GetLease():
		return 0, err
	case held.GetLease() != "":
		return heldFor, nil
	}
	return held.GetFreeAt().AsTime().Sub(w.Clock.Now()), nil
}

// until waits for one of two signals, unless the wait is over for another reason.
func (w *lockWait) until(ctx context.Context, signal <-chan struct{}, timer <-chan time.Time) error {
	check := time.NewTicker(api.LeaderCheck)
	defer check.Stop()
	for {
		select {
		case <-signal:
			return w.Node.CheckLeader()
		case <-timer:
			return w.Node.CheckLeader()
		case <-w.end:
			return cmp.Or(w.Node.CheckLeader(), lock.Held(w.name))
		case <-check.C:
			if err := cmp.Or(w.Node.CheckLeader(), w.StillKnown(ctx)); err != nil {
				return err
			}
		case <-w.Draining:
			return changes.Draining()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Release gives a lock back.
func (s *Service) Release(ctx context.Context, req *registryv1.ReleaseLockRequest) (*registryv1.ReleaseLockResponse, error) {
	cmd, name, err := lock.Release(req)
	if err != nil {
		return nil, err
	}
	result, err := s.Commit(ctx, cmd)
	if err != nil {
		return nil, err
	}
	if result.GetFailedReason() != "" {
		return nil, kv.LockNotHeld("token", name)
	}
	return &registryv1.ReleaseLockResponse{Meta: s.WriteMeta(result.GetIndex())}, nil
}

// Get reads one lock.
func (s *Service) Get(_ context.Context, req *registryv1.GetLockRequest) (*registryv1.GetLockResponse, error) {
	name, err := kv.LockName("name", req.GetName())
	if err != nil {
		return nil, err
	}
	resp := &registryv1.GetLockResponse{}
	err = s.Store.View(func(r record.Reader) (err error) {
		if resp.Lock, err = lock.Get(r, name); err == nil && resp.GetLock() == nil {
			err = api.WithIndex(lock.NotFound(name), r.Index())
		}
		resp.Meta = s.QueryMeta(r.Index())
		return err
	})
	return resp, err
}

// List returns the locks that the call's token may see.
func (s *Service) List(ctx context.Context, req *registryv1.ListLocksRequest) (*registryv1.ListLocksResponse, error) {
	resp := &registryv1.ListLocksResponse{}
	filtered := false
	may := api.Sees(ctx, acl.KV, acl.Read, &filtered)
	err := s.Store.View(func(r record.Reader) (err error) {
		resp.Meta = s.QueryMeta(r.Index())
		resp.Locks, err = lock.List(r, req, may)
		return err
	})
	if err != nil {
		return nil, err
	}
	resp.Meta.ResultsFiltered = filtered
	return resp, nil
}
