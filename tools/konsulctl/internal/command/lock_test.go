package command_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul/konsultest"
)

// locks makes a gateway answer for transactions, leases and locks.
func locks(g *konsultest.Gateway) {
	entry := func(key, value string, version uint64) *registryv1.Entry {
		return &registryv1.Entry{
			Key: key, Value: []byte(value), Scope: registryv1.Scope_SCOPE_LOCAL, CreateIndex: 3, ModifyIndex: 5 + version, Version: version, ModifiedAt: at(1),
			Meta: map[string]string{"owner": "web"}, Lease: "l1",
		}
	}
	write, query := &registryv1.WriteMeta{Datacenter: "us-west", Index: 21}, &registryv1.QueryMeta{Datacenter: "us-west", Index: 21, KnownLeader: true}
	konsultest.On(g, func(r *registryv1.TxnRequest) (*registryv1.TxnResponse, error) {
		if len(r.GetCompare()) == 0 {
			return &registryv1.TxnResponse{Succeeded: true, Meta: write, Results: []*registryv1.TxnResult{{Deleted: 2}}}, nil
		}
		return &registryv1.TxnResponse{Meta: write, Results: []*registryv1.TxnResult{{Entry: entry("jobs/next", "7", 2)}, {}}}, nil
	})
	konsultest.On(g, func(r *registryv1.HistoryRequest) (*registryv1.HistoryResponse, error) {
		return &registryv1.HistoryResponse{Meta: query, Versions: []*registryv1.KeyVersion{
			{Entry: &registryv1.Entry{Key: r.GetKey(), Scope: registryv1.Scope_SCOPE_LOCAL, ModifyIndex: 9, Version: 3, ModifiedAt: at(2)}, Deleted: true},
			{Entry: entry(r.GetKey(), "v2", 2)},
			{Entry: entry(r.GetKey(), "v1", 1)},
		}}, nil
	})
	lease := &registryv1.Lease{Id: "l1", Name: "presence/web-1", Ttl: durationpb.New(30 * time.Second), Remaining: durationpb.New(12 * time.Second), GrantedAt: at(1), CreateIndex: 4}
	gone := func(id string) error {
		if id == "gone" {
			return fault.New(fault.NotFound, "LEASE_NOT_FOUND", "lease %q has ended", id).WithField("id").WithRemedy("grant a new one")
		}
		return nil
	}
	konsultest.On(g, func(*registryv1.GrantLeaseRequest) (*registryv1.GrantLeaseResponse, error) {
		return &registryv1.GrantLeaseResponse{Lease: lease, Meta: write}, nil
	})
	konsultest.On(g, func(r *registryv1.KeepLeaseAliveRequest) (*registryv1.KeepLeaseAliveResponse, error) {
		return &registryv1.KeepLeaseAliveResponse{Ttl: lease.GetTtl()}, gone(r.GetId())
	})
	konsultest.On(g, func(r *registryv1.RevokeLeaseRequest) (*registryv1.RevokeLeaseResponse, error) {
		return &registryv1.RevokeLeaseResponse{Meta: write}, gone(r.GetId())
	})
	konsultest.On(g, func(*registryv1.GetLeaseRequest) (*registryv1.GetLeaseResponse, error) {
		return &registryv1.GetLeaseResponse{Lease: lease, Keys: []string{"presence/web-1", "x"}, Locks: []string{"jobs/nightly"}, Meta: query}, nil
	})
	konsultest.On(g, func(*registryv1.ListLeasesRequest) (*registryv1.ListLeasesResponse, error) {
		return &registryv1.ListLeasesResponse{Leases: []*registryv1.Lease{lease}, Meta: query}, nil
	})
	held := &registryv1.Lock{Name: "jobs/nightly", Lease: "l1", Token: 1042, AcquiredAt: at(1), Delay: durationpb.New(15 * time.Second), Holder: "web-1"}
	konsultest.On(g, func(r *registryv1.AcquireLockRequest) (*registryv1.AcquireLockResponse, error) {
		if r.GetName() == "taken" {
			return nil, fault.New(fault.Aborted, "LOCK_HELD", "lock %q is held by another lease", r.GetName()).WithField("name").WithRemedy("wait for it")
		}
		return &registryv1.AcquireLockResponse{Lock: held, Meta: write}, nil
	})
	konsultest.On(g, func(*registryv1.ReleaseLockRequest) (*registryv1.ReleaseLockResponse, error) {
		return &registryv1.ReleaseLockResponse{Meta: write}, nil
	})
	konsultest.On(g, func(*registryv1.GetLockRequest) (*registryv1.GetLockResponse, error) {
		return &registryv1.GetLockResponse{Lock: held, Meta: query}, nil
	})
	konsultest.On(g, func(*registryv1.ListLocksRequest) (*registryv1.ListLocksResponse, error) {
		lost := &registryv1.Lock{Name: "jobs/weekly", Token: 7, AcquiredAt: at(1), FreeAt: at(9)}
		return &registryv1.ListLocksResponse{Locks: []*registryv1.Lock{held, lost}, Meta: query}, nil
	})
}

func TestTxnFlagsMakeTheTransaction(t *testing.T) {
	g := federation(t)
	got := ctl(t, g, "", "kv", "txn", "--if", "a absent", "--if", "b value = x y", "--if", "c version > 3", "--if-held", "jobs/n=9",
		"--set", "a=1=2", "--get", "b", "--delete", "c", "--delete-prefix", "d/", "--else-get", "a", "--global")
	require.Zero(t, got.code, got.stderr)
	requests := g.Requests()
	same := requests[len(requests)-1].(*registryv1.TxnRequest)
	require.Equal(t, registryv1.Scope_SCOPE_GLOBAL, same.GetScope())
	require.Len(t, same.GetCompare(), 4)
	require.False(t, same.GetCompare()[0].GetExists())
	require.Equal(t, "x y", string(same.GetCompare()[1].GetValue()))
	require.Equal(t, registryv1.Compare_OPERATOR_GREATER, same.GetCompare()[2].GetOperator())
	require.EqualValues(t, 9, same.GetCompare()[3].GetHeld().GetToken())
	require.Len(t, same.GetSuccess(), 4)
	require.Equal(t, "1=2", string(same.GetSuccess()[0].GetSet().GetValue()))
	require.Equal(t, "d/", same.GetSuccess()[3].GetDeletePrefix().GetKey())
	require.Equal(t, "a", same.GetFailure()[0].GetGet().GetKey())
	require.NotEmpty(t, same.GetRequestId())

	got = ctl(t, g, `{"success":[{"set":{"key":"k","value":"dg=="}}]}`, "kv", "txn", "--file", "-")
	require.Zero(t, got.code, got.stderr)
	requests = g.Requests()
	require.Equal(t, "v", string(requests[len(requests)-1].(*registryv1.TxnRequest).GetSuccess()[0].GetSet().GetValue()))
	for _, wrong := range []string{"", "a", "a is there", "a version = x", "a version =", "a color = red", " exists = 1"} {
		got = ctl(t, g, "", "kv", "txn", "--if", wrong, "--get", "a")
		require.Equal(t, 2, got.code, "%q: %s", wrong, got.stderr)
	}
	require.Equal(t, 2, ctl(t, g, "{]", "kv", "txn", "--file", "-").code)
	require.Equal(t, 2, ctl(t, g, "", "kv", "txn", "--set", "a").code)
	for _, write := range [][]string{{"set", "a", "1"}, {"delete", "a"}} {
		require.Equal(t, 2, ctl(t, g, "", append([]string{"kv", "--fence", "a"}, write...)...).code)
		require.Zero(t, ctl(t, g, "", append(append([]string{"kv"}, write...), "--fence", "jobs/n=9")...).code)
		requests = g.Requests()
		fenced := requests[len(requests)-1].(interface{ GetFence() *registryv1.Fence }).GetFence()
		require.Equal(t, "jobs/n", fenced.GetLock())
		require.EqualValues(t, 9, fenced.GetToken())
	}
}

func TestLockRunGivesTheChildItsTokenAndEndsWithItsCode(t *testing.T) {
	g := federation(t)
	got := ctl(t, g, "in", "lock", "run", "jobs/nightly", "--", "sh", "-c", "cat; echo \" $KONSUL_LOCK_NAME $KONSUL_LOCK_TOKEN\"; exit 7")
	require.Equal(t, 7, got.code)
	require.Equal(t, "in jobs/nightly 1042\n", got.stdout)
	var released, revoked bool
	for _, request := range g.Requests() {
		if r, ok := request.(*registryv1.ReleaseLockRequest); ok {
			released = r.GetToken() == 1042
		}
		_, ok := request.(*registryv1.RevokeLeaseRequest)
		revoked = revoked || ok
	}
	require.True(t, released)
	require.True(t, revoked)
	require.Zero(t, ctl(t, g, "", "lock", "run", "jobs/nightly", "--", "true").code)
	require.Equal(t, 6, ctl(t, g, "", "lock", "run", "taken", "--", "true").code)
	require.Equal(t, 2, ctl(t, g, "", "lock", "run", "jobs/nightly").code)
	require.Equal(t, 2, ctl(t, g, "", "lock", "run", "jobs/nightly", "--", "no-such-program-anywhere").code)
}

func TestLockRunEndsTheChildWhenTheLockIsLost(t *testing.T) {
	g := federation(t)
	var mu sync.Mutex
	kept := 0
	konsultest.OnContext(g, func(context.Context, *registryv1.KeepLeaseAliveRequest) (*registryv1.KeepLeaseAliveResponse, error) {
		mu.Lock()
		defer mu.Unlock()
		if kept++; kept > 1 {
			return nil, fault.New(fault.NotFound, "LEASE_NOT_FOUND", "it has ended")
		}
		return &registryv1.KeepLeaseAliveResponse{}, nil
	})
	mark := filepath.Join(t.TempDir(), "ended")
	got := ctl(t, g, "", "lock", "run", "jobs/nightly", "--ttl", "600ms", "--", "sh", "-c", "trap 'echo ended > "+mark+"; exit 0' TERM; while true; do sleep 0.05; done")
	require.Equal(t, 5, got.code, got.stderr)
	require.Contains(t, got.stderr, "was lost while the command ran")
	text, err := os.ReadFile(mark)
	require.NoError(t, err)
	require.Equal(t, "ended", strings.TrimSpace(string(text)))
}
