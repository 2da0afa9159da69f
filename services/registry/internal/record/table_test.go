package record_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

func TestEveryTableHasOneRowInTheCatalogue(t *testing.T) {
	var declared, described []registryv1.Table
	for number := range registryv1.Table_name {
		if number != 0 {
			declared = append(declared, registryv1.Table(number))
		}
	}
	for _, table := range record.Tables() {
		described = append(described, table.ID)
		require.Equal(t, table.ID, record.Tables().Of(table.ID).ID)
	}
	slices.Sort(declared)
	slices.Sort(described)
	require.Equal(t, declared, described, "record.Tables must describe each registryv1.Table once")
}

func TestTheColumnsOfATableAgree(t *testing.T) {
	entries := map[federationv1.ReplicatedEntry_EntryType]registryv1.Table{}
	for _, table := range record.Tables() {
		t.Run(table.Name(), func(t *testing.T) {
			if table.Scope == record.LocalRows {
				require.Zero(t, table.Order, "local rows are not replicated")
				require.Zero(t, table.Entry)
			} else {
				require.NotZero(t, table.Order)
				require.NotContains(t, entries, table.Entry, "two tables are replicated as one type")
				entries[table.Entry] = table.ID
				back, ok := record.Tables().OfEntry(table.Entry)
				require.True(t, ok)
				require.Equal(t, table.ID, back.ID)
			}
			if table.Retention == record.KeepNothing {
				require.Equal(t, record.LocalRows, table.Scope, "a copy would not hear of deletes")
				require.Equal(t, record.WatchedByNobody, table.Watch, "a watcher would not hear of deletes")
				require.False(t, table.BackedUp())
			}
			if table.Watch != record.WatchedByNobody {
				require.NotEmpty(t, table.ACL.Resource, "users' tokens could not read what they may watch")
			}
			if table.ACL.Named == record.NamedByValue {
				require.NotNil(t, table.Value)
			}
			if table.ACL.Named != record.NamedAlike {
				require.Empty(t, table.ACL.Name)
			}
			if table.Value != nil {
				require.NotNil(t, table.Value())
			}
		})
	}
	const intention = federationv1.ReplicatedEntry_INTENTION // Has no table yet.
	for number := range federationv1.ReplicatedEntry_EntryType_name {
		if entry := federationv1.ReplicatedEntry_EntryType(number); entry != intention {
			require.Contains(t, slices.Collect(maps.Keys(entries)), entry)
		}
	}
}

func TestScopeKeepsLocalRowsHome(t *testing.T) {
	require.True(t, record.Global(registryv1.Table_TABLE_KV, "global/x"))
	require.False(t, record.Global(registryv1.Table_TABLE_KV, "globalx"))
	require.False(t, record.Global(registryv1.Table_TABLE_KV, "x/global/"))
	require.True(t, record.Global(registryv1.Table_TABLE_ACL_TOKEN, "1fe0b4a2-5f0c-4c11-9c58-90bd1d5a3e7f"))
	require.False(t, record.Global(registryv1.Table_TABLE_ACL_TOKEN, "local/1fe0b4a2-5f0c-4c11-9c58-90bd1d5a3e7f"))
	for _, table := range []registryv1.Table{
		registryv1.Table_TABLE_NODE, registryv1.Table_TABLE_SERVICE, registryv1.Table_TABLE_CHECK,
		registryv1.Table_TABLE_JOIN_TOKEN, registryv1.Table_TABLE_REPLICATION_CURSOR, registryv1.Table_TABLE_REQUEST,
		registryv1.Table_TABLE_FEDERATION, 200,
	} {
		require.False(t, record.Global(table, "global/x"), table.String())
	}
	for _, table := range record.Tables().Replicated() {
		require.True(t, table.Global(table.GlobalKeys()+"x"), table.Name())
	}
}

func TestATableThatIsNotKnownIsClosed(t *testing.T) {
	table := record.Tables().Of(200)
	require.Equal(t, record.Table{ID: 200}, table)
	_, ok := record.Tables().OfEntry(federationv1.ReplicatedEntry_INTENTION)
	require.False(t, ok)
}
