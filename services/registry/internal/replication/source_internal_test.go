package replication

import (
	"testing"

	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

func TestACopyAppliesPoliciesThenRolesThenTheRest(t *testing.T) {
	row := func(table registryv1.Table, index uint64) *registryv1.Record {
		return &registryv1.Record{Table: table, ModifyIndex: index}
	}
	rows := []*registryv1.Record{
		row(registryv1.Table_TABLE_ACL_TOKEN, 5), row(registryv1.Table_TABLE_KV, 4), row(registryv1.Table_TABLE_ACL_ROLE, 3),
		row(registryv1.Table_TABLE_ACL_POLICY, 9), row(registryv1.Table_TABLE_ACL_POLICY, 8),
	}
	var got []uint64
	for _, r := range inOrder(rows) {
		got = append(got, r.GetModifyIndex())
	}
	require.Equal(t, []uint64{8, 9, 3, 4, 5}, got)
	require.EqualValues(t, 5, rows[0].GetModifyIndex(), "what others read is not changed")
}
