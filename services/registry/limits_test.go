package registry_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry"
	"konsul.dev/services/registry/internal/quota"
	"konsul.dev/services/registry/registrytest"
)

func within(limits registry.Limits) registrytest.Options {
	return registrytest.Options{Adjust: func(cfg *registry.Config) { cfg.Registry.Limits = limits }}
}

func requireLimited(t *testing.T, err error, reason string) {
	t.Helper()
	f, ok := fault.As(err)
	require.True(t, ok, "%v", err)
	require.Equal(t, fault.ResourceExhausted, f.Code(), err)
	require.Equal(t, reason, f.Reason())
	require.Positive(t, f.RetryAfter())
}

func TestATokenHasNoMoreWatchesThanItMay(t *testing.T) {
	t.Parallel()
	const most = 3
	c := registrytest.Start(t, 1, within(registry.Limits{WatchesPerToken: most}))
	cl := c.Client(c.Servers[0])
	watch := func(ctx context.Context) error {
		stream, err := cl.Watch.Watch(ctx, &registryv1.WatchRequest{Table: registryv1.Table_TABLE_KV, Prefix: "local/x"})
		require.NoError(t, err)
		_, err = stream.Recv()
		return err
	}
	instances := func(ctx context.Context) error {
		stream, err := cl.Watch.WatchInstances(ctx, &registryv1.WatchInstancesRequest{Service: "web"})
		require.NoError(t, err)
		_, err = stream.Recv()
		return err
	}
	ctx, cancel := context.WithCancel(cl.Ctx())
	defer cancel()
	for range most {
		require.NoError(t, watch(ctx))
	}
	requireLimited(t, watch(cl.Ctx()), quota.ReasonWatches)
	requireLimited(t, instances(cl.Ctx()), quota.ReasonWatches)
	router := c.ClientAs(c.Servers[0], c.DC, "failover-router")
	stream, err := router.Watch.WatchInstances(router.Bare(), &registryv1.WatchInstancesRequest{Service: "web"})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.NoError(t, err, "a service that acts as itself")
	_, err = cl.KV.Set(cl.Ctx(), &registryv1.SetRequest{Key: "x"})
	require.NoError(t, err, "the rest goes on")
	cancel()
	c.Eventually(func() error { return instances(cl.Ctx()) })
}

func TestATokenHasNoMoreCallsWaitingThanItMay(t *testing.T) {
	t.Parallel()
	const most = 3
	c := registrytest.Start(t, 1, within(registry.Limits{BlockedReadsPerToken: most}))
	cl := c.Client(c.Servers[0])
	index := set(t, cl, "k", "v").GetMeta().GetIndex()
	read := func(wait time.Duration) error {
		_, err := cl.KV.Get(cl.Ctx(), &registryv1.GetRequest{Key: "k", Index: index, Wait: durationpb.New(wait)})
		return err
	}
	done := make(chan error, most)
	for range most {
		go func() {
			err := read(time.Minute)
			for fault.ReasonOf(err) == quota.ReasonBlockedReads { // The read below was there first.
				err = read(time.Minute)
			}
			done <- err
		}()
	}
	c.Eventually(func() error {
		if err := read(time.Millisecond); fault.ReasonOf(err) != quota.ReasonBlockedReads {
			return fmt.Errorf("not refused (%w)", err)
		}
		return nil
	})
	requireLimited(t, read(time.Minute), quota.ReasonBlockedReads)
	id := grant(t, cl, time.Minute)
	lock := func(wait time.Duration) error {
		_, err := cl.Locks.Acquire(cl.Ctx(), &registryv1.AcquireLockRequest{Name: "l", Lease: id, Wait: durationpb.New(wait)})
		return err
	}
	requireLimited(t, lock(time.Minute), quota.ReasonBlockedReads)
	require.NoError(t, lock(0), "what does not wait is not limited")
	require.Equal(t, "v", get(t, cl, "k", registryv1.ReadMode_READ_MODE_DEFAULT))
	set(t, cl, "k", "w")
	for range most {
		require.NoError(t, <-done)
	}
	require.NoError(t, read(time.Minute))
}

func TestATokenHasNoMoreLeasesThanItMay(t *testing.T) {
	t.Parallel()
	const most = 3
	c := registrytest.Start(t, 3, within(registry.Limits{LeasesPerToken: most}))
	cl := c.Client(c.Follower())
	request := func() *registryv1.GrantLeaseRequest {
		return &registryv1.GrantLeaseRequest{Ttl: durationpb.New(time.Minute), RequestId: uuid.NewString()}
	}
	last := request()
	for range most - 1 {
		_, err := cl.Leases.Grant(cl.Ctx(), request())
		require.NoError(t, err)
	}
	granted, err := cl.Leases.Grant(cl.Ctx(), last)
	require.NoError(t, err)
	require.NotEmpty(t, granted.GetLease().GetAccessorId())
	_, err = cl.Leases.Grant(cl.Ctx(), request())
	requireLimited(t, err, quota.ReasonLeases)
	again, err := cl.Leases.Grant(cl.Ctx(), last)
	require.NoError(t, err, "a request made again has its lease already")
	require.Equal(t, granted.GetLease().GetId(), again.GetLease().GetId())

	other, err := cl.ACL.CreateToken(cl.Ctx(), &registryv1.CreateTokenRequest{Management: true, RequestId: uuid.NewString()})
	require.NoError(t, err)
	_, err = cl.Leases.Grant(cl.As(other.GetSecret()), request())
	require.NoError(t, err, "another token")
	c.Leader().Stop() // What is counted is in the state.
	c.Leader()
	_, err = cl.Leases.Grant(cl.Ctx(), request())
	requireLimited(t, err, quota.ReasonLeases)
	_, err = cl.Leases.Revoke(cl.Ctx(), &registryv1.RevokeLeaseRequest{Id: granted.GetLease().GetId()})
	require.NoError(t, err)
	_, err = cl.Leases.Grant(cl.Ctx(), request())
	require.NoError(t, err)
}

func TestATokenAsksNoFasterThanItMay(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, 1, within(registry.Limits{RequestsPerSecond: 20}))
	cl := c.Client(c.Servers[0])
	var refused error
	for range 1000 {
		if _, err := cl.KV.Get(cl.Ctx(), &registryv1.GetRequest{Key: "k"}); fault.CodeOf(err) == fault.ResourceExhausted {
			refused = err
			break
		}
	}
	requireLimited(t, refused, quota.ReasonRate)
	agent := c.ClientAs(c.Servers[0], c.DC, "agent")
	for range 1000 {
		_, err := agent.Catalog.ListNodes(agent.Bare(), &registryv1.ListNodesRequest{})
		require.NoError(t, err, "a service that acts as itself")
	}
}
