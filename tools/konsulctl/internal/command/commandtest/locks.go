package commandtest

import (
	"time"

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
