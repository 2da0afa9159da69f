package federation_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"konsul.dev/pkg/fault"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/federation"
	"konsul.dev/services/registry/internal/fsm/fsmtest"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/record/recordtest"
)

func own(dc string) federation.Own {
	return federation.Own{
		FederationID: "fed", Datacenter: dc, PrimaryDatacenter: "dc1", GatewayAddresses: []string{dc + ":8443"},
		Version: "v1", NewID: func() string { return "id-" + dc }, NewLineage: func() string { return "lineage-" + dc },
	}
}

func ensure(t *testing.T, s *recordtest.Store, o federation.Own) bool {
	t.Helper()
	cmd, err := o.Ensure(s, time.Unix(1, 0))
	require.NoError(t, err)
	if cmd == nil {
		return false
	}
	index := s.Index() + 1
	result, err := fsmtest.Apply(s.At(index), index, cmd)
	require.NoError(t, err)
	require.Empty(t, result.GetFailedReason())
	return true
}

func TestTheRecordIsFoundedOnceAndTheOwnEntryFollowsConfiguration(t *testing.T) {
	s := recordtest.New()
	o := own("dc1")
	require.True(t, ensure(t, s, o))
	require.False(t, ensure(t, s, o))
	o.GatewayAddresses = []string{"elsewhere:8443"}
	o.PrimaryDatacenter = "dc9"
	require.True(t, ensure(t, s, o))
	v := federation.NewView(o)
	require.Equal(t, "dc9", v.Primary(), "before the record is read, what the configuration says")
	require.NoError(t, v.Load(s))
	require.Equal(t, "dc1", v.Primary(), "the record outlives the configuration")
	require.EqualValues(t, 1, v.Epoch())
	f := v.Snapshot()
	require.Equal(t, "id-dc1", f.GetMembers()[0].GetId())
	require.Equal(t, []string{"elsewhere:8443"}, f.GetMembers()[0].GetGatewayAddresses())
	require.Equal(t, []string{"dc1"}, v.Known())
}

func TestASecondaryLeavesItsReplicatedEntryAlone(t *testing.T) {
	s := recordtest.New()
	o := own("dc2")
	require.True(t, ensure(t, s, o))
	row, err := s.Get(registryv1.Table_TABLE_DATACENTER, "dc2")
	require.NoError(t, err)
	row.OriginDatacenter = "dc1"
	require.NoError(t, s.Put(row))
	o.Version = "v2"
	require.False(t, ensure(t, s, o))
}

// P3: whatever is stored, nothing local is ever sent.
func TestNothingLocalLeaves(t *testing.T) {
	v := federation.NewView(own("dc1"))
	rapid.Check(t, func(t *rapid.T) {
		s := recordtest.New()
		for i := range rapid.IntRange(1, 40).Draw(t, "rows") {
			table := registryv1.Table(rapid.IntRange(1, 20).Draw(t, "table"))
			key := rapid.SampledFrom([]string{"global/a", "global/b/c", "local/a", "a", "globalx", "local/global/x"}).Draw(t, "key")
			require.NoError(t, s.Put(&registryv1.Record{Table: table, Key: key, ModifyIndex: uint64(i + 1), Deleted: rapid.Bool().Draw(t, "deleted")}))
		}
		for _, row := range s.All() {
			e, sent := v.Entry(row, nil)
			require.Equal(t, record.Global(row.GetTable(), row.GetKey()), sent)
			if sent && e.GetType() == federationv1.ReplicatedEntry_KV {
				require.True(t, strings.HasPrefix(e.GetKey(), "global/"))
			}
		}
	})
}

func TestPrefixesNarrowWhatIsSentOfTheStore(t *testing.T) {
	row := func(key string) *registryv1.Record {
		return &registryv1.Record{Table: registryv1.Table_TABLE_KV, Key: key}
	}
	v := federation.NewView(own("dc1"))
	for key, want := range map[string]bool{"global/config/a": true, "global/other": false, "local/config/a": false} {
		for _, prefix := range []string{"global/config/", "config/", "config/*", "global/config/*"} {
			_, sent := v.Entry(row(key), []string{prefix})
			require.Equal(t, want, sent, "%s under %s", key, prefix)
		}
	}
}

func TestACursorOfAnOlderEpochIsRefused(t *testing.T) {
	s := recordtest.New()
	ensure(t, s, own("dc2"))
	v := federation.NewView(own("dc2"))
	require.NoError(t, v.Load(s))
	for reason, req := range map[string]*federationv1.ApplyReplicatedRequest{
		federation.ReasonEpochSuperseded: {SourceDc: "dc1", Cursor: &federationv1.ReplicationCursor{SourceDatacenter: "dc1", Index: 5}},
		federation.ReasonCursorMoved:     {SourceDc: "dc1", ExpectedIndex: 3, Cursor: &federationv1.ReplicationCursor{SourceDatacenter: "dc1", Index: 5, Epoch: 1}},
		fault.ReasonInvalidArgument:      {SourceDc: "dc2", Cursor: &federationv1.ReplicationCursor{SourceDatacenter: "dc2", Index: 5, Epoch: 1}},
	} {
		_, err := v.ApplyReplicated(s, req)
		require.Equal(t, reason, fault.ReasonOf(err))
	}
}
