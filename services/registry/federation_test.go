package registry_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity/identitytest"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/registrytest"
)

// pair is a primary, dc1, and a secondary, dc2, that reach each other without a gateway between:
// a gateway passes TLS through, so each may as well dial the other's servers.
type pair struct {
	t        *testing.T
	fed      string
	one, two *registrytest.Cluster
}

func startPair(t *testing.T) *pair {
	t.Helper()
	fed := uuid.NewString()
	ca := identitytest.NewCA(t, fed)
	one := registrytest.Prepare(t, 1, registrytest.Options{Datacenter: "dc1", CA: ca})
	two := registrytest.Prepare(t, 1, registrytest.Options{Datacenter: "dc2", Primary: "dc1", CA: ca, Gateway: one.Addresses()})
	one.SetGateway(two.Addresses())
	for _, c := range []*registrytest.Cluster{one, two} {
		c.Servers[0].Start()
		c.WaitReady()
	}
	return &pair{t: t, fed: fed, one: one, two: two}
}

// replicate copies what changed in dc1 to dc2, as dc2's replicator does, and returns what went over
// the wire.
func (p *pair) replicate() []*federationv1.ReplicatedEntry {
	p.t.Helper()
	source := p.one.ClientAs(p.one.Servers[0], "dc2", "replicator")
	sink := p.two.ClientAs(p.two.Servers[0], "dc2", "replicator")
	cursor, err := sink.Replication.GetCursor(sink.Bare(), &federationv1.GetCursorRequest{SourceDc: "dc1"})
	require.NoError(p.t, err)
	at := cursor.GetCursor().GetIndex()
	stream, err := source.Replication.Replicate(source.Bare(), p.request(int64(at)))
	require.NoError(p.t, err)
	var sent []*federationv1.ReplicatedEntry
	for {
		m, err := stream.Recv()
		require.NoError(p.t, err)
		require.EqualValues(p.t, 1, m.GetEpoch())
		require.NotNil(p.t, m.GetSourceTime())
		sent = append(sent, m.GetEntries()...)
		next := at
		if m.GetComplete() {
			next = uint64(m.GetCurrentIndex())
		}
		_, err = sink.Replication.ApplyReplicated(sink.Bare(), &federationv1.ApplyReplicatedRequest{
			SourceDc: "dc1", Entries: m.GetEntries(), ExpectedIndex: at,
			Cursor: &federationv1.ReplicationCursor{SourceDatacenter: "dc1", Index: next, Epoch: m.GetEpoch(), SourceTime: m.GetSourceTime()},
		})
		require.NoError(p.t, err)
		at = next
		if m.GetComplete() {
			return sent
		}
	}
}

func (p *pair) request(since int64) *federationv1.ReplicationRequest {
	return &federationv1.ReplicationRequest{SourceDc: "dc1", TargetDc: "dc2", LastReplicatedIndex: since, FederationId: p.fed, Epoch: 1, Heartbeat: durationpb.New(200 * time.Millisecond)}
}

// admit makes dc2 a member, as its join does.
func (p *pair) admit() {
	p.t.Helper()
	ca := p.one.ClientAs(p.one.Servers[0], "dc1", "ca")
	public, _, err := ed25519.GenerateKey(nil)
	require.NoError(p.t, err)
	_, err = ca.Trust.PutJoinToken(ca.Bare(), &registryv1.PutJoinTokenRequest{Token: &registryv1.JoinToken{
		Id: "join-dc2", PublicKey: public, Datacenter: "dc2", ExpiresAt: timestamppb.New(time.Now().Add(time.Hour)),
	}})
	require.NoError(p.t, err)
	_, err = ca.Trust.AdmitDatacenter(ca.Bare(), &registryv1.AdmitDatacenterRequest{
		TokenId: "join-dc2", Datacenter: &federationv1.Datacenter{Name: "dc2", Id: uuid.NewString(), GatewayAddresses: p.two.Addresses()},
	})
	require.NoError(p.t, err)
}

func TestAcrossTwoDatacenters(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	primary, secondary := p.one.Client(p.one.Servers[0]), p.two.Client(p.two.Servers[0])

	_, err := secondary.KV.Get(secondary.Ctx(), &registryv1.GetRequest{Key: "x"})
	require.Equal(t, "TOKEN_UNKNOWN", fault.ReasonOf(err), "tokens come by replication")
	set(t, primary, "here", "stays")
	register(t, primary, "n1", "api-1", "api")
	first := p.replicate()
	for _, e := range first {
		require.NotContains(t, e.GetKey(), "local/")
		require.NotContains(t, e.GetKey(), "api-1")
	}

	written := set(t, secondary, "global/config/version", "v2")
	require.Equal(t, "dc1", written.GetMeta().GetDatacenter(), "a global write goes to the primary")
	require.Equal(t, "v2", get(t, primary, "config/version", 0))
	require.Len(t, p.replicate(), 1)
	require.Equal(t, "v2", get(t, secondary, "config/version", 0))
	got, err := secondary.KV.Get(secondary.Ctx(), &registryv1.GetRequest{Key: "config/version"})
	require.NoError(t, err)
	require.Equal(t, "dc1", got.GetEntry().GetOriginDatacenter())
	require.Empty(t, p.replicate(), "nothing changed")

	_, err = secondary.KV.Delete(secondary.Ctx(), &registryv1.DeleteRequest{Key: "config/version", Scope: registryv1.Scope_SCOPE_GLOBAL})
	require.NoError(t, err)
	require.Len(t, p.replicate(), 1)
	_, err = secondary.KV.Get(secondary.Ctx(), &registryv1.GetRequest{Key: "config/version"})
	require.Equal(t, fault.NotFound, fault.CodeOf(err))

	set(t, secondary, "mine", "local to dc2")
	_, err = primary.KV.Get(primary.Ctx(), &registryv1.GetRequest{Key: "mine"})
	require.Equal(t, fault.NotFound, fault.CodeOf(err))
	far, err := secondary.KV.Get(secondary.Ctx(), &registryv1.GetRequest{Key: "here", Datacenter: "dc1"})
	require.NoError(t, err)
	require.Equal(t, "dc1", far.GetMeta().GetDatacenter())
	query, err := secondary.Catalog.QueryService(secondary.Ctx(), &registryv1.QueryServiceRequest{Service: "api", Datacenter: "dc1"})
	require.NoError(t, err)
	require.Equal(t, "dc1", query.GetInstances()[0].GetDatacenter())
	router := p.two.ClientAs(p.two.Servers[0], "dc2", "failover-router")
	query, err = router.Catalog.QueryService(router.Bare(), &registryv1.QueryServiceRequest{Service: "api", Datacenter: "dc1"})
	require.NoError(t, err, "a service's own call is passed on without a token")
	require.Len(t, query.GetInstances(), 1)
	status, err := secondary.Operator.ClusterStatus(secondary.Ctx(), &registryv1.ClusterStatusRequest{Datacenter: "dc1"})
	require.NoError(t, err)
	require.Equal(t, "dc1", status.GetDatacenter())

	stream, err := router.Watch.Watch(router.Bare(), &registryv1.WatchRequest{Table: registryv1.Table_TABLE_SERVICE, Datacenter: "dc1"})
	require.NoError(t, err)
	m, err := stream.Recv()
	require.NoError(t, err)
	require.Len(t, m.GetRecords(), 1)

	// P3: without a user's token no other datacenter sees keys, whichever service asks.
	stranger := p.one.ClientAs(p.one.Servers[0], "dc2", "registry")
	for _, refused := range []registryv1.WatchService_WatchClient{
		watchKV(stranger.Bare(), t, stranger.Watch, ""), watchKV(router.Bare(), t, router.Watch, "dc1"),
	} {
		_, err = refused.Recv()
		require.Equal(t, fault.PermissionDenied, fault.CodeOf(err), "%v", err)
	}

	p.one.Servers[0].Kill()
	_, err = secondary.KV.Get(secondary.Ctx(), &registryv1.GetRequest{Key: "here", Datacenter: "dc1"})
	require.Equal(t, fault.Unavailable, fault.CodeOf(err))
	require.Equal(t, "DATACENTER_UNREACHABLE", fault.ReasonOf(err))
	require.Equal(t, "local to dc2", get(t, secondary, "mine", registryv1.ReadMode_READ_MODE_LINEARIZABLE))
	set(t, secondary, "mine", "still")
}

func watchKV(ctx context.Context, t *testing.T, client registryv1.WatchServiceClient, dc string) registryv1.WatchService_WatchClient {
	t.Helper()
	stream, err := client.Watch(ctx, &registryv1.WatchRequest{Table: registryv1.Table_TABLE_KV, Datacenter: dc})
	require.NoError(t, err)
	return stream
}

func TestReplicationIsRefusedWhenItWouldHarm(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	source := p.one.ClientAs(p.one.Servers[0], "dc2", "replicator")
	refused := func(c *registrytest.Client, change func(*federationv1.ReplicationRequest)) string {
		req := p.request(0)
		change(req)
		stream, err := c.Replication.Replicate(c.Bare(), req)
		require.NoError(t, err)
		_, err = stream.Recv()
		return fault.ReasonOf(err)
	}
	require.Equal(t, "OTHER_FEDERATION", refused(source, func(r *federationv1.ReplicationRequest) { r.FederationId = "other" }))
	require.Equal(t, "EPOCH_SUPERSEDED", refused(source, func(r *federationv1.ReplicationRequest) { r.Epoch = 2 }))
	require.Equal(t, "SOURCE_INDEX_BEHIND", refused(source, func(r *federationv1.ReplicationRequest) { r.LastReplicatedIndex = 1 << 40 }))
	require.Equal(t, "WRONG_SOURCE", refused(source, func(r *federationv1.ReplicationRequest) { r.SourceDc = "dc3" }))
	secondary := p.two.ClientAs(p.two.Servers[0], "dc2", "replicator")
	require.Equal(t, "NOT_PRIMARY", refused(secondary, func(r *federationv1.ReplicationRequest) { r.SourceDc = "dc2" }))
	stranger := p.one.ClientAs(p.one.Servers[0], "dc2", "agent")
	require.Equal(t, "PEER_DENIED", refused(stranger, func(*federationv1.ReplicationRequest) {}))

	apply := func(expected uint64, entries ...*federationv1.ReplicatedEntry) string {
		_, err := secondary.Replication.ApplyReplicated(secondary.Bare(), &federationv1.ApplyReplicatedRequest{
			SourceDc: "dc1", ExpectedIndex: expected, Entries: entries,
			Cursor: &federationv1.ReplicationCursor{SourceDatacenter: "dc1", Index: 50, Epoch: 1},
		})
		return fault.ReasonOf(err)
	}
	require.Equal(t, "LOCAL_RECORD", apply(0, &federationv1.ReplicatedEntry{Key: "local/x"}))
	require.Equal(t, "CURSOR_MOVED", apply(7))
	require.Empty(t, apply(0, &federationv1.ReplicatedEntry{Key: "global/x", OriginDc: "dc1", ModifyIndex: 40}))
	require.Equal(t, "CURSOR_MOVED", apply(0))
}

// A copy refuses a source that stands before it, and looks at every message: the pieces of a full
// sync said index 0, so that one of more than a thousand rows stopped replication for good.
func TestEveryPieceOfAFullSyncSaysWhereItEnds(t *testing.T) {
	t.Parallel()
	const rows = 2100
	p := startPair(t)
	primary := p.one.Client(p.one.Servers[0])
	for first := 0; first < rows; first += 50 {
		txn := &registryv1.TxnRequest{}
		for i := first; i < first+50; i++ {
			txn.Success = append(txn.Success, &registryv1.TxnOperation{Operation: &registryv1.TxnOperation_Set{
				Set: &registryv1.TxnSet{Key: fmt.Sprintf("global/%04d", i), Value: []byte("v")},
			}})
		}
		_, err := primary.KV.Txn(primary.Ctx(), txn)
		require.NoError(t, err)
	}
	stood := set(t, primary, "mine", "x").GetMeta().GetIndex()
	mustRestore(t, primary, &registryv1.RestoreStart{}, mustCreate(t, primary, nil))

	source := p.one.ClientAs(p.one.Servers[0], "dc2", "replicator")
	stream, err := source.Replication.Replicate(source.Bare(), p.request(int64(stood)))
	require.NoError(t, err)
	var messages []*federationv1.ReplicationResponse
	copied := 0
	for len(messages) == 0 || !messages[len(messages)-1].GetComplete() {
		m, err := stream.Recv()
		require.NoError(t, err)
		require.True(t, m.GetFullSyncRequired())
		messages, copied = append(messages, m), copied+len(m.GetEntries())
	}
	require.Greater(t, len(messages), 2)
	require.GreaterOrEqual(t, copied, rows)
	ended := messages[len(messages)-1].GetCurrentIndex()
	require.Greater(t, ended, int64(stood))
	for _, m := range messages {
		require.Equal(t, ended, m.GetCurrentIndex())
	}
}

func TestReplicationStreamFollowsAndBeats(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	primary := p.one.Client(p.one.Servers[0])
	source := p.one.ClientAs(p.one.Servers[0], "dc2", "replicator")
	stream, err := source.Replication.Replicate(source.Bare(), p.request(0))
	require.NoError(t, err)
	m, err := stream.Recv()
	require.NoError(t, err)
	require.True(t, m.GetComplete())
	require.False(t, m.GetFullSyncRequired())
	m, err = stream.Recv()
	require.NoError(t, err)
	require.Empty(t, m.GetEntries(), "a heartbeat")
	set(t, primary, "local-noise", "x")
	written := set(t, primary, "global/a", "1").GetMeta().GetIndex()
	for len(m.GetEntries()) == 0 {
		m, err = stream.Recv()
		require.NoError(t, err)
	}
	require.Equal(t, "global/a", m.GetEntries()[0].GetKey())
	require.EqualValues(t, written, m.GetEntries()[0].GetModifyIndex())
	require.GreaterOrEqual(t, m.GetCurrentIndex(), int64(written))
}

func TestAJoinTokenAdmitsOneDatacenterOnce(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	ca := c.ClientAs(c.Servers[0], c.DC, "ca")
	public, _, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	put := func(id, dc string, expires time.Time) string {
		_, err := ca.Trust.PutJoinToken(ca.Bare(), &registryv1.PutJoinTokenRequest{Token: &registryv1.JoinToken{
			Id: id, PublicKey: public, Datacenter: dc, ExpiresAt: timestamppb.New(expires),
		}})
		return fault.ReasonOf(err)
	}
	admit := func(id, dc, requestID string) string {
		_, err := ca.Trust.AdmitDatacenter(ca.Bare(), &registryv1.AdmitDatacenterRequest{
			TokenId: id, RequestId: requestID, Datacenter: &federationv1.Datacenter{Name: dc, Id: uuid.NewString(), GatewayAddresses: []string{"127.0.0.2:8443"}},
		})
		return fault.ReasonOf(err)
	}
	soon := time.Now().Add(time.Hour)
	require.Empty(t, put("t1", "dc2", soon))
	require.Equal(t, "JOIN_TOKEN_EXISTS", put("t1", "dc2", soon))
	require.Equal(t, "DATACENTER_EXISTS", put("t2", "dc1", soon))
	require.Empty(t, put("old", "dc3", time.Now().Add(-time.Second)))
	require.Equal(t, "JOIN_TOKEN_EXPIRED", admit("old", "dc3", ""))
	require.Equal(t, "JOIN_TOKEN_NOT_FOUND", admit("none", "dc3", ""))
	require.Equal(t, "JOIN_TOKEN_FOR_ANOTHER", admit("t1", "dc3", ""))
	require.Empty(t, put("t3", "dc2", soon))
	require.Empty(t, admit("t1", "dc2", "r1"))
	require.Empty(t, admit("t1", "dc2", "r1"), "a retry of the same request hears the same")
	require.Equal(t, "JOIN_TOKEN_USED", admit("t1", "dc2", "r2"))
	require.Equal(t, "DATACENTER_EXISTS", admit("t3", "dc2", "r3"))
	got, err := ca.Trust.GetJoinToken(ca.Bare(), &registryv1.GetJoinTokenRequest{Id: "t1"})
	require.NoError(t, err)
	require.NotNil(t, got.GetToken().GetUsedAt())

	root := &registryv1.CARoot{Fingerprint: "ab", Certificate: []byte{1}, Active: true}
	published, err := ca.Trust.PublishRoots(ca.Bare(), &registryv1.PublishRootsRequest{Roots: []*registryv1.CARoot{root}})
	require.NoError(t, err)
	again, err := ca.Trust.PublishRoots(ca.Bare(), &registryv1.PublishRootsRequest{Roots: []*registryv1.CARoot{root}})
	require.NoError(t, err)
	require.Equal(t, published.GetIndex(), again.GetIndex(), "what is known costs no commit")
}
