package federation

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/fsm/fsmtest"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/record/recordtest"
)

// A new global table is one row of the catalogue, and its proto.
func TestANewGlobalTableIsReplicatedByItsRowInTheCatalogue(t *testing.T) {
	const (
		intentions = registryv1.Table(100)
		entryType  = federationv1.ReplicatedEntry_EntryType(100)
	)
	tables := append(slices.Clone(record.Tables()), record.Table{
		ID: intentions, Scope: record.GlobalRows, Entry: entryType, Order: record.ThenTheRest,
	})
	source, target := NewView(Own{Datacenter: "dc1"}), NewView(Own{Datacenter: "dc2"})
	source.tables, target.tables = tables, tables
	copied := recordtest.New()
	cursor := uint64(0)
	replicate := func(row *registryv1.Record) *registryv1.Record {
		t.Helper()
		entry, sent := source.Entry(row, []string{"config/"})
		require.True(t, sent, "prefixes are for keys")
		require.Equal(t, entryType, entry.GetType())
		index := row.GetModifyIndex()
		cmd, err := target.ApplyReplicated(copied, &federationv1.ApplyReplicatedRequest{
			SourceDc: "dc1", ExpectedIndex: cursor, Entries: []*federationv1.ReplicatedEntry{entry},
			Cursor: &federationv1.ReplicationCursor{SourceDatacenter: "dc1", Index: index},
		})
		require.NoError(t, err)
		result, err := fsmtest.Apply(copied.At(index+1000), index+1000, cmd)
		require.NoError(t, err)
		require.Empty(t, result.GetFailedReason())
		cursor = index
		got, err := copied.Get(intentions, row.GetKey())
		require.NoError(t, err)
		return got
	}
	got := replicate(&registryv1.Record{Table: intentions, Key: "web", Value: []byte("v1"), ModifyIndex: 7, OriginDatacenter: "dc1"})
	require.Equal(t, "v1", string(got.GetValue()))
	require.EqualValues(t, 7, got.GetOriginIndex())
	got = replicate(&registryv1.Record{Table: intentions, Key: "web", Deleted: true, ModifyIndex: 9, OriginDatacenter: "dc1"})
	require.True(t, got.GetDeleted(), "a delete arrives as a tombstone")

	_, sent := NewView(Own{Datacenter: "dc1"}).Entry(&registryv1.Record{Table: intentions, Key: "web"}, nil)
	require.False(t, sent, "without its row the table stays home")
}
