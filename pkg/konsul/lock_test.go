package konsul_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/pkg/konsul/konsultest"
)

// leasing makes a gateway grant leases, which fail to be kept alive after so many times.
func leasing(t *testing.T, times int64) (*konsultest.Gateway, *atomic.Int64) {
	gateway := konsultest.Start(t)
	kept := &atomic.Int64{}
	konsultest.On(gateway, func(r *registryv1.GrantLeaseRequest) (*registryv1.GrantLeaseResponse, error) {
		return &registryv1.GrantLeaseResponse{Lease: &registryv1.Lease{Id: "l1", Ttl: r.GetTtl()}}, nil
	})
	konsultest.On(gateway, func(*registryv1.KeepLeaseAliveRequest) (*registryv1.KeepLeaseAliveResponse, error) {
		if kept.Add(1) > times {
			return nil, fault.New(fault.NotFound, "LEASE_NOT_FOUND", "it has ended")
		}
		return &registryv1.KeepLeaseAliveResponse{}, nil
	})
	konsultest.On(gateway, func(*registryv1.RevokeLeaseRequest) (*registryv1.RevokeLeaseResponse, error) {
		return &registryv1.RevokeLeaseResponse{}, nil
	})
	return gateway, kept
}

func TestALeaseIsKeptAliveUntilItIsClosed(t *testing.T) {
	gateway, kept := leasing(t, 1000)
	client := gateway.Client(t)
	lease, err := client.Leases.Keep(t.Context(), 60*time.Millisecond, &konsul.LeaseOptions{Name: "presence/x"})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return kept.Load() > 5 }, 10*time.Second, time.Millisecond)
	require.NoError(t, lease.Err())
	require.NoError(t, lease.Close(t.Context()))
	requests := gateway.Requests()
	require.IsType(t, &registryv1.RevokeLeaseRequest{}, requests[len(requests)-1], "nothing keeps it alive any more")
}

func TestALeaseThatHasEndedIsLost(t *testing.T) {
	gateway, _ := leasing(t, 2)
	lease, err := gateway.Client(t).Leases.Keep(t.Context(), 60*time.Millisecond, nil)
	require.NoError(t, err)
	<-lease.Lost()
	require.Equal(t, fault.NotFound, fault.CodeOf(lease.Err()))
	require.NoError(t, lease.Close(t.Context()))
}

func TestALeaseIsLostWhenTheRegistryIsNotReachedInTime(t *testing.T) {
	gateway, _ := leasing(t, 1000)
	lease, err := gateway.Client(t).Leases.Keep(t.Context(), 300*time.Millisecond, nil)
	require.NoError(t, err)
	gateway.Stop()
	<-lease.Lost()
	require.Equal(t, konsul.ReasonLeaseLost, fault.ReasonOf(lease.Err()))
}

func TestALockIsHeldByALeaseOfItsOwn(t *testing.T) {
	gateway, _ := leasing(t, 1000)
	konsultest.On(gateway, func(r *registryv1.AcquireLockRequest) (*registryv1.AcquireLockResponse, error) {
		if r.GetName() == "taken" {
			return nil, fault.New(fault.Aborted, "LOCK_HELD", "another one has it")
		}
		return &registryv1.AcquireLockResponse{Lock: &registryv1.Lock{Name: r.GetName(), Lease: r.GetLease(), Token: 42}}, nil
	})
	konsultest.On(gateway, func(*registryv1.ReleaseLockRequest) (*registryv1.ReleaseLockResponse, error) {
		return &registryv1.ReleaseLockResponse{}, nil
	})
	client := gateway.Client(t)
	delay := time.Duration(0)
	lock, err := client.Locks.Acquire(t.Context(), "jobs/x", &konsul.LockOptions{TTL: time.Minute, Wait: time.Second, Delay: &delay, Holder: "me"})
	require.NoError(t, err)
	require.Equal(t, &konsul.Fence{Lock: "jobs/x", Token: 42}, lock.Fence())
	requests := gateway.Requests()
	same(t, &registryv1.AcquireLockRequest{Name: "jobs/x", Lease: "l1", Wait: durationpb.New(time.Second), Delay: durationpb.New(0), Holder: "me"}, requests[len(requests)-1])
	require.NoError(t, lock.Release(t.Context()))
	_, err = client.Locks.Acquire(t.Context(), "taken", nil)
	require.Equal(t, "LOCK_HELD", fault.ReasonOf(err))
	requests = gateway.Requests()
	require.IsType(t, &registryv1.RevokeLeaseRequest{}, requests[len(requests)-1], "a lease for nothing is given back")
}

func TestTxnAndHistory(t *testing.T) {
	gateway := konsultest.Start(t)
	konsultest.On(gateway, func(*registryv1.TxnRequest) (*registryv1.TxnResponse, error) {
		return &registryv1.TxnResponse{Succeeded: true, Meta: &registryv1.WriteMeta{Datacenter: "us-west", Index: 9}, Results: []*registryv1.TxnResult{{Entry: entry("a")}, {Deleted: 2}}}, nil
	})
	konsultest.On(gateway, func(r *registryv1.HistoryRequest) (*registryv1.HistoryResponse, error) {
		return &registryv1.HistoryResponse{Versions: []*registryv1.KeyVersion{{Entry: entry(r.GetKey()), Deleted: true}, {Entry: entry(r.GetKey())}}}, nil
	})
	client := gateway.Client(t)
	result, err := client.KV.Txn(t.Context(), konsul.Txn{
		If: []konsul.Compare{
			konsul.KeyExists("a"), konsul.KeyAbsent("b"), konsul.KeyValue("a", konsul.Equal, []byte("1")), konsul.KeyVersion("a", konsul.Less, 3),
			konsul.KeyIndex("a", konsul.Greater, 1), konsul.KeyCreated("a", konsul.NotEqual, 2), konsul.LockHeld(konsul.Fence{Lock: "l", Token: 7}),
		},
		Then:   []konsul.Op{konsul.OpSet("a", []byte("2"), &konsul.SetOptions{Lease: "l1"}), konsul.OpDeletePrefix("b/")},
		Else:   []konsul.Op{konsul.OpGet("a"), konsul.OpDelete("b")},
		Global: true,
	})
	require.NoError(t, err)
	require.True(t, result.Succeeded)
	require.EqualValues(t, 2, result.Results[1].Deleted)
	require.Equal(t, "a", result.Results[0].Entry.Key)
	sent, ok := gateway.Requests()[0].(*registryv1.TxnRequest)
	require.True(t, ok)
	require.Len(t, sent.GetCompare(), 7)
	require.Equal(t, registryv1.Compare_OPERATOR_LESS, sent.GetCompare()[3].GetOperator())
	require.Len(t, sent.GetSuccess(), 2)
	require.Equal(t, "l1", sent.GetSuccess()[0].GetSet().GetLease())
	require.Len(t, sent.GetFailure(), 2)
	require.Equal(t, registryv1.Scope_SCOPE_GLOBAL, sent.GetScope())
	versions, err := client.KV.History(t.Context(), "a", nil)
	require.NoError(t, err)
	require.Len(t, versions, 2)
	require.True(t, versions[0].Deleted)
}
