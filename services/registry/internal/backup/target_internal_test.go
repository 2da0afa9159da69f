package backup

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"konsul.dev/pkg/backupfile"
	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

func TestWhatARestoredStateIsMadeOf(t *testing.T) {
	const caller = "caller-accessor"
	same := backupfile.Manifest{FederationID: "fed", Datacenter: "dc1", Epoch: 1}
	later := backupfile.Manifest{FederationID: "fed", Datacenter: "dc1", Epoch: 2}
	foreign := backupfile.Manifest{FederationID: "other", Datacenter: "us-east", Epoch: 7}
	member := backupfile.Manifest{FederationID: "fed", Datacenter: "dc2", Epoch: 1}
	primary := Target{FederationID: "fed", Datacenter: "dc1", Epoch: 1, Primary: true, Caller: caller}
	secondary := primary
	secondary.Primary = false
	const (
		kept  = "kept"  // the target's stays, the backup's does not come
		taken = "taken" // the target's goes, the backup's comes
		gone  = "gone"  // neither
		both  = "both"  // the target's stays where it is, the backup's comes where there is none
	)
	row := func(table registryv1.Table, key string) *registryv1.Record {
		return &registryv1.Record{Table: table, Key: key}
	}
	for name, c := range map[string]struct {
		row    *registryv1.Record
		target Target
		source backupfile.Manifest
		want   string
	}{
		"a local key":                             {row(kvTable, "local/a"), primary, same, taken},
		"a local key in a secondary":              {row(kvTable, "local/a"), secondary, same, taken},
		"a global key":                            {row(kvTable, "global/a"), primary, same, taken},
		"a global key in a secondary":             {row(kvTable, "global/a"), secondary, same, kept},
		"a service":                               {row(registryv1.Table_TABLE_SERVICE, "web-1"), secondary, foreign, taken},
		"a setting":                               {row(registryv1.Table_TABLE_SETTING, "autopilot"), primary, foreign, taken},
		"a server":                                {row(registryv1.Table_TABLE_SERVER, "registry-1"), primary, same, kept},
		"a server of another":                     {row(registryv1.Table_TABLE_SERVER, "registry-9"), primary, foreign, kept},
		"a trust anchor":                          {row(registryv1.Table_TABLE_CA_ROOT, "ab"), primary, same, kept},
		"a join token":                            {row(registryv1.Table_TABLE_JOIN_TOKEN, "t"), primary, same, kept},
		"the outcome of a request":                {row(registryv1.Table_TABLE_REQUEST, "r"), primary, same, gone},
		"the federation":                          {row(registryv1.Table_TABLE_FEDERATION, "federation"), primary, same, kept},
		"the federation of a later epoch":         {row(registryv1.Table_TABLE_FEDERATION, "federation"), primary, later, taken},
		"the federation of another":               {row(registryv1.Table_TABLE_FEDERATION, "federation"), primary, foreign, kept},
		"a member":                                {row(registryv1.Table_TABLE_DATACENTER, "dc3"), primary, same, both},
		"a member of another federation":          {row(registryv1.Table_TABLE_DATACENTER, "dc3"), primary, foreign, kept},
		"the datacenter whose place is taken":     {row(registryv1.Table_TABLE_DATACENTER, "dc2"), primary, member, kept},
		"a cursor of the primary":                 {row(registryv1.Table_TABLE_REPLICATION_CURSOR, "dc1"), primary, same, gone},
		"a cursor of a secondary":                 {row(registryv1.Table_TABLE_REPLICATION_CURSOR, "dc1"), secondary, same, kept},
		"a token":                                 {row(registryv1.Table_TABLE_ACL_TOKEN, "t"), primary, same, taken},
		"a global token in a secondary":           {row(registryv1.Table_TABLE_ACL_TOKEN, "t"), secondary, same, kept},
		"a local token in a secondary":            {row(registryv1.Table_TABLE_ACL_TOKEN, record.LocalPrefix+"t"), secondary, same, taken},
		"the token that asks":                     {row(registryv1.Table_TABLE_ACL_TOKEN, caller), primary, same, both},
		"the local token that asks":               {row(registryv1.Table_TABLE_ACL_TOKEN, record.LocalPrefix+caller), secondary, same, both},
		"the bootstrap of access control":         {row(registryv1.Table_TABLE_ACL_BOOTSTRAP, "bootstrap"), primary, same, both},
		"a failover policy":                       {row(registryv1.Table_TABLE_FAILOVER_POLICY, "web"), primary, foreign, taken},
		"a failover policy in a secondary":        {row(registryv1.Table_TABLE_FAILOVER_POLICY, "web"), secondary, same, kept},
		"a row of a table that is not known here": {row(99, "x"), primary, same, taken},
	} {
		t.Run(name, func(t *testing.T) {
			s := &selection{target: c.target, source: c.source, kept: map[rowID]struct{}{}}
			require.Equal(t, c.want == kept || c.want == both, s.keeps(c.row), "the target's stays")
			require.Equal(t, c.want == taken || c.want == both, s.takes(c.row), "the backup's comes")
			if s.keeps(c.row) {
				s.keep(c.row)
				require.False(t, s.takes(c.row), "but never over one that stays")
			}
		})
	}
}

func TestRowsBecomeTheTargets(t *testing.T) {
	s := &selection{
		target: Target{FederationID: "new", Datacenter: "us-east-new", Epoch: 1, Primary: true},
		source: backupfile.Manifest{FederationID: "old", Datacenter: "us-east", Epoch: 5}, index: 1000,
	}
	remap := func(row *registryv1.Record) *registryv1.Record {
		t.Helper()
		before := proto.CloneOf(row)
		out, err := s.remap(row)
		require.NoError(t, err)
		require.True(t, proto.Equal(before, row), "what was read is not changed")
		return out
	}
	own := remap(&registryv1.Record{Table: kvTable, Key: "global/a", CreateIndex: 3, ModifyIndex: 9, Version: 4, OriginDatacenter: "us-east", OriginEpoch: 5, OriginIndex: 9})
	require.True(t, proto.Equal(&registryv1.Record{
		Table: kvTable, Key: "global/a", CreateIndex: 3, ModifyIndex: 1000, Version: 4, OriginDatacenter: "us-east-new", OriginEpoch: 1, OriginIndex: 1000,
	}, own), "%v", own)
	copied := remap(&registryv1.Record{Table: kvTable, Key: "global/b", ModifyIndex: 9, OriginDatacenter: "us-west", OriginEpoch: 2, OriginIndex: 7})
	require.Equal(t, "us-west", copied.GetOriginDatacenter())
	require.EqualValues(t, 2, copied.GetOriginEpoch())
	require.EqualValues(t, 7, copied.GetOriginIndex())
	require.EqualValues(t, 1000, copied.GetModifyIndex())

	value, err := proto.Marshal(&registryv1.FailoverPolicy{Service: "web", Failover: []*registryv1.FailoverTarget{{Datacenter: "us-west"}, {Datacenter: "us-east", Targets: 2}}})
	require.NoError(t, err)
	policy := &registryv1.FailoverPolicy{}
	require.NoError(t, proto.Unmarshal(remap(&registryv1.Record{Table: registryv1.Table_TABLE_FAILOVER_POLICY, Key: "web", Value: value}).GetValue(), policy))
	require.Equal(t, "us-west", policy.GetFailover()[0].GetDatacenter())
	require.Equal(t, "us-east-new", policy.GetFailover()[1].GetDatacenter())
	require.EqualValues(t, 2, policy.GetFailover()[1].GetTargets())
	_, err = s.remap(&registryv1.Record{Table: registryv1.Table_TABLE_FAILOVER_POLICY, Key: "web", Value: []byte{0xff}})
	require.Equal(t, backupfile.ReasonDamaged, fault.ReasonOf(err))

	s.target = Target{FederationID: "old", Datacenter: "us-east", Epoch: 1, Primary: true}
	require.EqualValues(t, 5, remap(&registryv1.Record{OriginDatacenter: "us-east"}).GetOriginEpoch(), "the federation's record comes back too")
}
