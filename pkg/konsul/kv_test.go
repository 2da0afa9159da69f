package konsul_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/pkg/konsul/konsultest"
)

var written = time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)

func entry(key string) *registryv1.Entry {
	return &registryv1.Entry{
		Key: key, Value: []byte("v2.0"), Scope: registryv1.Scope_SCOPE_GLOBAL, Flags: 1, CreateIndex: 2, ModifyIndex: 3, Version: 4,
		OriginDatacenter: "us-east", ModifiedAt: timestamppb.New(written),
	}
}

func TestKVGet(t *testing.T) {
	gateway := konsultest.Start(t)
	konsultest.On(gateway, func(r *registryv1.GetRequest) (*registryv1.GetResponse, error) {
		return &registryv1.GetResponse{Entry: entry(r.GetKey()), Meta: &registryv1.QueryMeta{Datacenter: "eu-central", Index: 9}}, nil
	})
	client := gateway.Client(t)
	got, err := client.KV.Get(t.Context(), "config/app/version", &konsul.GetOptions{
		Global: true, Datacenter: "eu-central", ReadMode: konsul.ReadLinearizable, Index: 8, Wait: time.Second,
	})
	require.NoError(t, err)
	require.Equal(t, &konsul.Entry{
		Key: "config/app/version", Value: []byte("v2.0"), Scope: konsul.ScopeGlobal, Flags: 1, CreateIndex: 2, ModifyIndex: 3, Version: 4,
		OriginDatacenter: "us-east", ModifiedAt: written, Datacenter: "eu-central", Index: 9,
	}, got)
	same(t, &registryv1.GetRequest{
		Key: "config/app/version", Scope: registryv1.Scope_SCOPE_GLOBAL, Datacenter: "eu-central",
		ReadMode: registryv1.ReadMode_READ_MODE_LINEARIZABLE, Index: 8, Wait: durationpb.New(time.Second),
	}, gateway.Requests()[0])

	_, err = client.KV.Get(t.Context(), "k", &konsul.GetOptions{Global: true, Local: true})
	require.Equal(t, fault.InvalidArgument, fault.CodeOf(err))
}

func TestKVSetAndDelete(t *testing.T) {
	gateway := konsultest.Start(t)
	konsultest.On(gateway, func(r *registryv1.SetRequest) (*registryv1.SetResponse, error) {
		if r.Cas != nil && r.GetCas() != 3 {
			return nil, fault.New(fault.Aborted, "CAS_MISMATCH", "moved on")
		}
		return &registryv1.SetResponse{Entry: entry(r.GetKey()), Meta: &registryv1.WriteMeta{Datacenter: "us-east", Index: 12}}, nil
	})
	konsultest.On(gateway, func(r *registryv1.DeleteRequest) (*registryv1.DeleteResponse, error) {
		return &registryv1.DeleteResponse{Deleted: 5}, nil
	})
	client := gateway.Client(t)
	got, err := client.KV.Set(t.Context(), "k", []byte("v"), &konsul.SetOptions{Local: true, CAS: new(uint64(3)), Flags: 2})
	require.NoError(t, err)
	require.Equal(t, []any{"us-east", uint64(12)}, []any{got.Datacenter, got.Index})
	request := konsultest.Last[*registryv1.SetRequest](gateway)
	require.Len(t, request.GetRequestId(), 36)
	request.RequestId = ""
	same(t, &registryv1.SetRequest{Key: "k", Value: []byte("v"), Scope: registryv1.Scope_SCOPE_LOCAL, Cas: new(uint64(3)), Flags: 2}, request)

	_, err = client.KV.Set(t.Context(), "k", nil, &konsul.SetOptions{CAS: new(uint64)})
	require.Equal(t, fault.Aborted, fault.CodeOf(err))

	deleted, err := client.KV.Delete(t.Context(), "config/", &konsul.DeleteOptions{Recurse: true})
	require.NoError(t, err)
	require.EqualValues(t, 5, deleted)
	require.True(t, konsultest.Last[*registryv1.DeleteRequest](gateway).GetRecurse())
}

func TestKVListPutsPagesTogether(t *testing.T) {
	gateway := konsultest.Start(t)
	konsultest.On(gateway, func(r *registryv1.ListRequest) (*registryv1.ListResponse, error) {
		meta := &registryv1.QueryMeta{Datacenter: "us-east", Index: 7}
		if r.GetPageToken() == "" {
			return &registryv1.ListResponse{Entries: []*registryv1.Entry{entry("a"), entry("b")}, NextPageToken: "2", Meta: meta}, nil
		}
		if r.GetIndex() != 0 {
			return nil, fault.Invalid("index", "only the first page waits")
		}
		meta.Index = 8
		return &registryv1.ListResponse{Entries: []*registryv1.Entry{entry("c")}, Meta: meta}, nil
	})
	list, err := gateway.Client(t).KV.List(t.Context(), "", &konsul.ListKeysOptions{Index: 6, Wait: time.Second})
	require.NoError(t, err)
	require.EqualValues(t, 7, list.Index)
	require.Equal(t, "us-east", list.Datacenter)
	var keys []string
	for _, e := range list.Entries {
		keys = append(keys, e.Key)
	}
	require.Equal(t, []string{"a", "b", "c"}, keys)
}

func TestDatacentersList(t *testing.T) {
	gateway := konsultest.Start(t)
	konsultest.On(gateway, func(*wangossipv1.ListDatacentersRequest) (*wangossipv1.ListDatacentersResponse, error) {
		return &wangossipv1.ListDatacentersResponse{Datacenter: "us-west", Datacenters: []*wangossipv1.Datacenter{
			{Name: "us-east", Id: "1", State: wangossipv1.DatacenterState_DATACENTER_STATE_FAILED, Primary: true, StateSince: timestamppb.New(written)},
			{Name: "us-west", Id: "2", State: wangossipv1.DatacenterState_DATACENTER_STATE_ALIVE, RoundTrip: durationpb.New(0), GatewayAddresses: []string{"h:8443"}},
		}}, nil
	})
	got, err := gateway.Client(t).Datacenters.List(t.Context())
	require.NoError(t, err)
	require.Equal(t, []*konsul.Datacenter{
		{Name: "us-east", ID: "1", State: konsul.DatacenterFailed, RoundTrip: konsul.RoundTripUnknown, Primary: true, StateSince: written},
		{Name: "us-west", ID: "2", State: konsul.DatacenterAlive, Local: true, GatewayAddresses: []string{"h:8443"}},
	}, got)
}

func TestClusterStatus(t *testing.T) {
	gateway := konsultest.Start(t)
	konsultest.On(gateway, func(r *registryv1.ClusterStatusRequest) (*registryv1.ClusterStatusResponse, error) {
		return &registryv1.ClusterStatusResponse{
			Datacenter: r.GetDatacenter(), Leader: "n1", Healthy: true, Epoch: 1, FederationId: "f", PrimaryDatacenter: "us-east", Time: timestamppb.New(written),
			Servers: []*registryv1.ServerState{{Id: "n1", Address: "h:8300", State: "leader", Voter: true, Term: 2, LastLogIndex: 5, CommitIndex: 4, AppliedIndex: 3, Version: "v"}},
		}, nil
	})
	got, err := gateway.Client(t).Cluster.Status(t.Context(), "us-west")
	require.NoError(t, err)
	require.Equal(t, &konsul.ClusterStatus{
		Datacenter: "us-west", Leader: "n1", Healthy: true, Epoch: 1, FederationID: "f", PrimaryDatacenter: "us-east", Time: written,
		Servers: []konsul.Server{{ID: "n1", Address: "h:8300", State: "leader", Voter: true, Term: 2, LastLogIndex: 5, CommitIndex: 4, AppliedIndex: 3, Version: "v"}},
	}, got)
}

func TestCreateJoinToken(t *testing.T) {
	gateway := konsultest.Start(t)
	konsultest.On(gateway, func(*cav1.CreateJoinTokenRequest) (*cav1.CreateJoinTokenResponse, error) {
		return &cav1.CreateJoinTokenResponse{Token: "content", Id: "1", ExpiresAt: timestamppb.New(written)}, nil
	})
	got, err := gateway.Client(t).CA.CreateJoinToken(t.Context(), "asia-pacific", 10*time.Minute)
	require.NoError(t, err)
	require.Equal(t, &konsul.JoinToken{ID: "1", Token: "content", ExpiresAt: written}, got)
	same(t, &cav1.CreateJoinTokenRequest{Datacenter: "asia-pacific", Ttl: durationpb.New(10 * time.Minute)}, gateway.Requests()[0])
}
