package acl_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/fsm/fsmtest"
	"konsul.dev/services/registry/internal/record/recordtest"
)

const secret = "0123456789abcdef0123456789abcdef"

func TestInitialTokenIsStoredHashedOnceAndResolves(t *testing.T) {
	store := recordtest.New()
	cmd, err := acl.Initial(secret+"\n", "dc1", time.Unix(1, 0))
	require.NoError(t, err)
	for index := uint64(1); index <= 2; index++ {
		_, err = fsmtest.Apply(store.At(index), index, cmd)
		require.NoError(t, err)
	}
	rows := store.All()
	require.Len(t, rows, 2, "the token, and the mark that closes the bootstrap")
	require.NotContains(t, string(rows[0].GetValue()), secret)

	loaded, followed := acl.NewView(clock.System()), acl.NewView(clock.System())
	require.NoError(t, loaded.Load(store))
	require.NoError(t, followed.Apply(rows))
	for _, v := range []*acl.View{loaded, followed} {
		a, err := v.Resolve(secret)
		require.NoError(t, err)
		require.True(t, a.Management())
		_, err = v.Resolve(secret + "x")
		require.Equal(t, fault.Unauthenticated, fault.CodeOf(err))
	}
	require.NoError(t, followed.Apply([]*registryv1.Record{{Table: rows[0].GetTable(), Key: rows[0].GetKey(), Deleted: true}}))
	_, err = followed.Resolve(secret)
	require.Equal(t, acl.ReasonTokenUnknown, fault.ReasonOf(err))
}

func TestShortInitialSecretIsRefused(t *testing.T) {
	_, err := acl.Initial("short\n", "dc1", time.Unix(1, 0))
	f, _ := fault.As(err)
	require.Equal(t, "registry.initial_management_token_file", f.Field())
}
