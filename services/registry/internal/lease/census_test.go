package lease_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/lease"
	"konsul.dev/services/registry/internal/record/recordtest"
)

func TestACensusCountsWhatIsThere(t *testing.T) {
	s := recordtest.New()
	index := uint64(0)
	lock := func(name, holder string) *registryv1.Record {
		value, err := proto.Marshal(&registryv1.Lock{Name: name, Lease: holder})
		require.NoError(t, err)
		return &registryv1.Record{Table: registryv1.Table_TABLE_LOCK, Key: name, Value: value}
	}
	leased := func(id string) *registryv1.Record {
		value, err := proto.Marshal(&registryv1.Lease{Id: id, AccessorId: "token"})
		require.NoError(t, err)
		return &registryv1.Record{Table: registryv1.Table_TABLE_LEASE, Key: fsm.LeasePrefix + id, Value: value}
	}
	gone := func(row *registryv1.Record) *registryv1.Record {
		return &registryv1.Record{Table: row.GetTable(), Key: row.GetKey(), Deleted: true}
	}
	registry := prometheus.NewPedanticRegistry()
	census := lease.NewCensus(registry)
	count := func(registry *prometheus.Registry) (leases, locks float64) {
		families, err := registry.Gather()
		require.NoError(t, err)
		require.Len(t, families, 2)
		return families[0].GetMetric()[0].GetGauge().GetValue(), families[1].GetMetric()[0].GetGauge().GetValue()
	}
	for _, step := range []struct {
		rows          []*registryv1.Record
		leases, locks float64
	}{
		{[]*registryv1.Record{leased("a"), leased("b"), {Table: registryv1.Table_TABLE_LEASE, Key: "held/a/x"}, {Table: registryv1.Table_TABLE_KV, Key: "local/a"}}, 2, 0},
		{[]*registryv1.Record{lock("l", "a"), lock("m", "a"), leased("a")}, 2, 2},
		{[]*registryv1.Record{gone(leased("a")), lock("l", ""), gone(lock("m", "a")), gone(leased("never"))}, 1, 0},
		{[]*registryv1.Record{lock("l", "b")}, 1, 1},
	} {
		index++
		tx := s.At(index)
		for _, row := range step.rows {
			row.CreateIndex, row.ModifyIndex = index, index
			require.NoError(t, tx.Put(row))
		}
		require.NoError(t, census.Apply(step.rows))
		leases, locks := count(registry)
		require.Equal(t, []float64{step.leases, step.locks}, []float64{leases, locks})
		require.Equal(t, int(step.leases), census.Held("token"))
		require.Zero(t, census.Held("another"))

		again := prometheus.NewPedanticRegistry()
		restarted := lease.NewCensus(again)
		require.NoError(t, restarted.Load(s))
		leases, locks = count(again)
		require.Equal(t, []float64{step.leases, step.locks}, []float64{leases, locks}, "after a restart")
		require.Equal(t, int(step.leases), restarted.Held("token"))
	}
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	require.Empty(t, problems)
}
