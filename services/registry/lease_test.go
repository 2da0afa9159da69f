package registry_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/kv"
	"konsul.dev/services/registry/internal/lease"
	"konsul.dev/services/registry/internal/lock"
	"konsul.dev/services/registry/registrytest"
)

func grant(t *testing.T, cl *registrytest.Client, ttl time.Duration) string {
	t.Helper()
	resp, err := cl.Leases.Grant(cl.Ctx(), &registryv1.GrantLeaseRequest{Ttl: durationpb.New(ttl)})
	require.NoError(t, err)
	require.Equal(t, ttl, resp.GetLease().GetRemaining().AsDuration())
	return resp.GetLease().GetId()
}

// gone returns nil when a key has no value.
func gone(cl *registrytest.Client, key string) error {
	_, err := cl.KV.Get(cl.Ctx(), &registryv1.GetRequest{Key: key})
	if fault.ReasonOf(err) == kv.ReasonKeyNotFound {
		return nil
	}
	return fmt.Errorf("%s is there still (%w)", key, err)
}

func TestALeaseEndsWithItsKeysAndLocksUnlessItIsKeptAlive(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	cl, far := c.Client(c.Leader()), c.Client(c.Follower())
	kept, left := grant(t, cl, 2*time.Second), grant(t, far, time.Second)
	for _, key := range []string{"a", "b", "c"} {
		_, err := far.KV.Set(far.Ctx(), &registryv1.SetRequest{Key: key, Value: []byte("v"), Lease: left})
		require.NoError(t, err)
	}
	// An overwrite with another lease, or with none, detaches.
	_, err := cl.KV.Set(cl.Ctx(), &registryv1.SetRequest{Key: "b", Lease: kept})
	require.NoError(t, err)
	_, err = cl.KV.Set(cl.Ctx(), &registryv1.SetRequest{Key: "c"})
	require.NoError(t, err)
	held, err := far.Locks.Acquire(far.Ctx(), &registryv1.AcquireLockRequest{Name: "jobs/x", Lease: left, Delay: durationpb.New(0)})
	require.NoError(t, err)
	require.Equal(t, held.GetMeta().GetIndex(), held.GetLock().GetToken())
	got, err := far.Leases.Get(far.Ctx(), &registryv1.GetLeaseRequest{Id: left})
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, got.GetKeys())
	require.Equal(t, []string{"jobs/x"}, got.GetLocks())
	require.LessOrEqual(t, got.GetLease().GetRemaining().AsDuration(), time.Second)

	// Whoever waits gets the lock when its holder's lease has ended.
	waiting := make(chan *registryv1.AcquireLockResponse, 1)
	go func() {
		resp, _ := far.Locks.Acquire(far.Ctx(), &registryv1.AcquireLockRequest{Name: "jobs/x", Lease: kept, Wait: durationpb.New(registrytest.Patience)})
		waiting <- resp
	}()
	c.Eventually(func() error {
		_, err := far.Leases.KeepAlive(far.Ctx(), &registryv1.KeepLeaseAliveRequest{Id: kept})
		require.NoError(t, err)
		return gone(far, "a")
	})
	next := <-waiting
	require.Equal(t, kept, next.GetLock().GetLease())
	require.Greater(t, next.GetLock().GetToken(), held.GetLock().GetToken())
	_, err = far.Leases.KeepAlive(far.Ctx(), &registryv1.KeepLeaseAliveRequest{Id: left})
	require.Equal(t, fault.NotFound, fault.CodeOf(err))
	_, err = far.KV.Set(far.Ctx(), &registryv1.SetRequest{Key: "a", Lease: left})
	require.Equal(t, kv.ReasonLeaseNotFound, fault.ReasonOf(err))
	require.Equal(t, fault.FailedPrecondition, fault.CodeOf(err))
	_, err = far.KV.Set(far.Ctx(), &registryv1.SetRequest{Key: "global/a", Lease: kept})
	f, _ := fault.As(err)
	require.Equal(t, "lease", f.Field())

	for _, s := range c.Servers {
		c.Eventually(func() error {
			if leases, locks := metric(t, s, "konsul_registry_leases"), metric(t, s, "konsul_registry_locks_held"); leases != 1 || locks != 1 {
				return fmt.Errorf("%s counts %v leases and %v locks", s.ID(), leases, locks)
			}
			return nil
		})
	}
	list, err := far.Leases.List(far.Ctx(), &registryv1.ListLeasesRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetLeases(), 1)
	request := &registryv1.RevokeLeaseRequest{Id: kept, RequestId: uuid.NewString()}
	first, err := far.Leases.Revoke(far.Ctx(), request)
	require.NoError(t, err)
	again, err := cl.Leases.Revoke(cl.Ctx(), request)
	require.NoError(t, err, "a request made again hears its first outcome")
	require.Equal(t, first.GetMeta().GetIndex(), again.GetMeta().GetIndex())
	require.NoError(t, gone(far, "b"))
	require.Error(t, gone(far, "c"))
	_, err = far.Leases.Revoke(far.Ctx(), &registryv1.RevokeLeaseRequest{Id: kept})
	require.Equal(t, fault.NotFound, fault.CodeOf(err))
}

func TestGrantIsRefusedForWhatCannotBe(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	for field, request := range map[string]*registryv1.GrantLeaseRequest{
		"ttl":  {Ttl: durationpb.New(time.Millisecond)},
		"id":   {Id: "a/b", Ttl: durationpb.New(time.Minute)},
		"name": {Name: "global/x", Ttl: durationpb.New(time.Minute)},
	} {
		_, err := cl.Leases.Grant(cl.Ctx(), request)
		f, _ := fault.As(err)
		require.Equal(t, fault.InvalidArgument, f.Code(), "%v", err)
		require.Equal(t, field, f.Field())
	}
	request := &registryv1.GrantLeaseRequest{Ttl: durationpb.New(time.Minute), RequestId: uuid.NewString()}
	first, err := cl.Leases.Grant(cl.Ctx(), request)
	require.NoError(t, err)
	again, err := cl.Leases.Grant(cl.Ctx(), request)
	require.NoError(t, err)
	require.Equal(t, first.GetLease().GetId(), again.GetLease().GetId())
	_, err = cl.Leases.Grant(cl.Ctx(), &registryv1.GrantLeaseRequest{Id: first.GetLease().GetId(), Ttl: durationpb.New(time.Minute)})
	require.Equal(t, lease.ReasonExists, fault.ReasonOf(err))
}

func TestALockThatIsLostIsKeptFromEverybodyForItsDelay(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	one, two := grant(t, cl, time.Minute), grant(t, cl, time.Minute)
	acquire := func(lease string, wait time.Duration) (*registryv1.AcquireLockResponse, error) {
		return cl.Locks.Acquire(cl.Ctx(), &registryv1.AcquireLockRequest{
			Name: "l", Lease: lease, Wait: durationpb.New(wait), Delay: durationpb.New(600 * time.Millisecond), Holder: "me",
		})
	}
	first, err := acquire(one, 0)
	require.NoError(t, err)
	again, err := acquire(one, 0)
	require.NoError(t, err)
	require.Equal(t, first.GetLock().GetToken(), again.GetLock().GetToken(), "who has it keeps it")
	_, err = acquire(two, 0)
	require.Equal(t, lock.ReasonHeld, fault.ReasonOf(err))
	_, err = acquire(two, 10*time.Millisecond)
	require.Equal(t, lock.ReasonHeld, fault.ReasonOf(err))

	fenced := func(token uint64) error {
		_, err := cl.KV.Set(cl.Ctx(), &registryv1.SetRequest{Key: "x", Fence: &registryv1.Fence{Lock: "l", Token: token}})
		return err
	}
	require.NoError(t, fenced(first.GetLock().GetToken()))
	require.Equal(t, kv.ReasonLockNotHeld, fault.ReasonOf(fenced(first.GetLock().GetToken()+1)))

	lost := time.Now()
	_, err = cl.Leases.Revoke(cl.Ctx(), &registryv1.RevokeLeaseRequest{Id: one})
	require.NoError(t, err)
	require.Equal(t, kv.ReasonLockNotHeld, fault.ReasonOf(fenced(first.GetLock().GetToken())))
	_, err = acquire(two, 0)
	require.Equal(t, lock.ReasonHeld, fault.ReasonOf(err))
	second, err := acquire(two, registrytest.Patience)
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(lost), 600*time.Millisecond)
	require.Greater(t, second.GetLock().GetToken(), first.GetLock().GetToken())

	request := &registryv1.ReleaseLockRequest{Name: "l", Token: second.GetLock().GetToken(), RequestId: uuid.NewString()}
	_, err = cl.Locks.Release(cl.Ctx(), request)
	require.NoError(t, err)
	_, err = cl.Locks.Release(cl.Ctx(), request)
	require.NoError(t, err, "a request made again hears its first outcome")
	_, err = cl.Locks.Release(cl.Ctx(), &registryv1.ReleaseLockRequest{Name: "l", Token: second.GetLock().GetToken()})
	require.Equal(t, kv.ReasonLockNotHeld, fault.ReasonOf(err))
	_, err = cl.Locks.Get(cl.Ctx(), &registryv1.GetLockRequest{Name: "l"})
	require.Equal(t, lock.ReasonNotFound, fault.ReasonOf(err))
	third, err := acquire(grant(t, cl, time.Minute), 0)
	require.NoError(t, err, "what was given back has no delay")
	require.Greater(t, third.GetLock().GetToken(), second.GetLock().GetToken())
}

func TestTheRowOfALostLockGoesWithItsDelay(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	id := grant(t, cl, time.Second)
	_, err := cl.Locks.Acquire(cl.Ctx(), &registryv1.AcquireLockRequest{Name: "l", Lease: id, Delay: durationpb.New(300 * time.Millisecond)})
	require.NoError(t, err)
	c.Eventually(func() error {
		_, err := cl.Locks.Get(cl.Ctx(), &registryv1.GetLockRequest{Name: "l"})
		if fault.ReasonOf(err) == lock.ReasonNotFound {
			return nil
		}
		return fmt.Errorf("the lock is there still: %w", err)
	})
}

// TestWaitersGetALockOneAfterTheOther has many ask for a lock at all servers: each has it alone,
// with a token above all before.
func TestWaitersGetALockOneAfterTheOther(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	const workers = 12
	var mu sync.Mutex
	var tokens []uint64
	inside := 0
	var all sync.WaitGroup
	for i := range workers {
		cl := c.Client(c.Servers[i%3])
		id := grant(t, cl, time.Minute)
		all.Go(func() {
			resp, err := cl.Locks.Acquire(cl.Ctx(), &registryv1.AcquireLockRequest{Name: "l", Lease: id, Wait: durationpb.New(registrytest.Patience)})
			if err != nil {
				t.Errorf("worker %d: %v", i, err)
				return
			}
			mu.Lock()
			tokens = append(tokens, resp.GetLock().GetToken())
			inside++
			if inside != 1 {
				t.Errorf("%d hold the lock at once", inside)
			}
			mu.Unlock()
			mu.Lock()
			inside--
			mu.Unlock()
			if _, err := cl.Locks.Release(cl.Ctx(), &registryv1.ReleaseLockRequest{Name: "l", Token: resp.GetLock().GetToken()}); err != nil {
				t.Errorf("worker %d: release: %v", i, err)
			}
		})
	}
	all.Wait()
	require.Len(t, tokens, workers)
	for i := 1; i < len(tokens); i++ {
		require.Greater(t, tokens[i], tokens[i-1])
	}
}

// TestAnElectionTakesNobodysLock kills the leader under a lease: it has its whole time once more,
// its lock stays, and once it has ended nobody gets its token again.
func TestAnElectionTakesNobodysLock(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	leader := c.Leader()
	cl := c.Client(c.Follower())
	const ttl = 2 * time.Second
	id := grant(t, cl, ttl)
	held, err := cl.Locks.Acquire(cl.Ctx(), &registryv1.AcquireLockRequest{Name: "l", Lease: id, Delay: durationpb.New(time.Second)})
	require.NoError(t, err)
	_, err = cl.KV.Set(cl.Ctx(), &registryv1.SetRequest{Key: "x", Lease: id})
	require.NoError(t, err)
	killed := time.Now()
	leader.Kill()
	c.Leader()
	// The holder is slow to notice: for most of a TTL after the election it is safe.
	registrytest.Throughout(t, ttl/2, func() error {
		resp, err := cl.Locks.Get(cl.Ctx(), &registryv1.GetLockRequest{Name: "l"})
		if err == nil && resp.GetLock().GetToken() != held.GetLock().GetToken() {
			err = fmt.Errorf("another one has it: %v", resp.GetLock())
		}
		return err
	})
	_, err = cl.Leases.KeepAlive(cl.Ctx(), &registryv1.KeepLeaseAliveRequest{Id: id})
	require.NoError(t, err)
	alive := time.Now()
	other := grant(t, cl, time.Minute)
	next, err := cl.Locks.Acquire(cl.Ctx(), &registryv1.AcquireLockRequest{Name: "l", Lease: other, Wait: durationpb.New(registrytest.Patience)})
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(alive), ttl, "kept alive, it has its whole time and the delay")
	require.Greater(t, time.Since(killed), ttl+ttl/2)
	require.Greater(t, next.GetLock().GetToken(), held.GetLock().GetToken())
	require.NoError(t, gone(cl, "x"))
	_, err = cl.KV.Set(cl.Ctx(), &registryv1.SetRequest{Key: "y", Fence: &registryv1.Fence{Lock: "l", Token: held.GetLock().GetToken()}})
	require.Equal(t, kv.ReasonLockNotHeld, fault.ReasonOf(err), "the old holder's writes do not pass")
}

func TestWhoGivesUpLeavesTheLine(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	one, two, three := grant(t, cl, time.Minute), grant(t, cl, time.Minute), grant(t, cl, time.Minute)
	held, err := cl.Locks.Acquire(cl.Ctx(), &registryv1.AcquireLockRequest{Name: "l", Lease: one})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(cl.Ctx(), 200*time.Millisecond)
	defer cancel()
	_, err = cl.Locks.Acquire(ctx, &registryv1.AcquireLockRequest{Name: "l", Lease: two, Wait: durationpb.New(time.Minute)})
	require.Error(t, err)
	got := make(chan error, 1)
	go func() {
		_, err := cl.Locks.Acquire(cl.Ctx(), &registryv1.AcquireLockRequest{Name: "l", Lease: three, Wait: durationpb.New(registrytest.Patience)})
		got <- err
	}()
	_, err = cl.Locks.Release(cl.Ctx(), &registryv1.ReleaseLockRequest{Name: "l", Token: held.GetLock().GetToken()})
	require.NoError(t, err)
	require.NoError(t, <-got)
}

// attach writes keys with a lease, a thousand at once.
func attach(t *testing.T, cl *registrytest.Client, id string, keys int) {
	t.Helper()
	const each = 1000
	for first := 0; first < keys; first += each {
		req := &registryv1.BatchRequest{}
		for i := first; i < min(first+each, keys); i++ {
			req.Operations = append(req.Operations, &registryv1.BatchOperation{Operation: &registryv1.BatchOperation_Set{
				Set: &registryv1.SetRequest{Key: fmt.Sprintf("%s/%d", id, i), Lease: id},
			}})
		}
		resp, err := cl.KV.Batch(cl.Ctx(), req)
		require.NoError(t, err)
		for _, result := range resp.GetResults() {
			require.NotNil(t, result.GetSet(), result)
		}
	}
}

// left returns how many keys of a lease are there.
func left(t *testing.T, cl *registrytest.Client, id string) int {
	t.Helper()
	resp, err := cl.KV.List(cl.Ctx(), &registryv1.ListRequest{Prefix: id + "/", KeysOnly: true})
	require.NoError(t, err)
	return len(resp.GetEntries())
}

func TestALeaseOfManyKeysEndsInBoundedCommits(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	const keys = 2*lease.EndedAtOnce + 500
	revoked, expired := grant(t, cl, time.Minute), grant(t, cl, time.Minute)
	attach(t, cl, revoked, keys)
	attach(t, cl, expired, keys)
	held, err := cl.Locks.Acquire(cl.Ctx(), &registryv1.AcquireLockRequest{Name: "l", Lease: revoked})
	require.NoError(t, err)
	req := &registryv1.RevokeLeaseRequest{Id: revoked, RequestId: uuid.NewString()}
	resp, err := cl.Leases.Revoke(cl.Ctx(), req)
	require.NoError(t, err)
	require.GreaterOrEqual(t, resp.GetMeta().GetIndex(), held.GetMeta().GetIndex()+3)
	require.Zero(t, left(t, cl, revoked), "a revocation returns when all is gone")
	_, err = cl.Leases.Revoke(cl.Ctx(), req)
	require.NoError(t, err, "the same request made again")
	_, err = cl.Leases.Revoke(cl.Ctx(), &registryv1.RevokeLeaseRequest{Id: revoked})
	require.Equal(t, kv.ReasonLeaseNotFound, fault.ReasonOf(err))
	require.NotZero(t, left(t, cl, expired))
}

// TestAnEndOutlivesItsLeader kills the leader while it deletes what was attached to a lease.
func TestAnEndOutlivesItsLeader(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	leader := c.Leader()
	cl := c.Client(c.Follower())
	id := grant(t, cl, time.Minute)
	attach(t, cl, id, 4*lease.EndedAtOnce)
	answered := make(chan error, 1)
	go func() {
		_, err := cl.Leases.Revoke(cl.Ctx(), &registryv1.RevokeLeaseRequest{Id: id, RequestId: uuid.NewString()})
		answered <- err
	}()
	c.Eventually(func() error {
		_, err := cl.Leases.Get(cl.Ctx(), &registryv1.GetLeaseRequest{Id: id})
		if fault.ReasonOf(err) != kv.ReasonLeaseNotFound {
			return fmt.Errorf("the lease is there still (%w)", err)
		}
		return nil
	})
	leader.Kill()
	c.Leader()
	require.NoError(t, <-answered, "repeated where the next leader is, it waits for the end")
	require.Zero(t, left(t, cl, id))
}
