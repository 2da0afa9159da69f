package watching

import (
	"testing"

	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/catalog"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/watch"
)

func TestEveryWatchedRowTakesAPermissionThatRulesCanGrant(t *testing.T) {
	services := catalog.NewView("dc1")
	for _, table := range record.Tables() {
		need, asked := rowNeed(services, &registryv1.Record{Table: table.ID, Key: "global/x"})
		require.True(t, asked, table.Name())
		watched := table.Watch != record.WatchedByNobody
		require.Equal(t, watched, need.Resource != acl.ACL, "%s: %s", table.Name(), need)
		for _, need := range filterNeeds(services, watch.Filter{Table: table.ID, Prefix: "global/x"}) {
			require.Equal(t, watched, need.Resource != acl.ACL, "%s: %s", table.Name(), need)
		}
	}
	need, asked := rowNeed(services, &registryv1.Record{Table: 200, Key: "x"})
	require.True(t, asked)
	require.Equal(t, acl.ACL, need.Resource, "only management tokens read what is not known")
}
