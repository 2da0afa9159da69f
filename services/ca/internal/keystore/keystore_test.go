package keystore_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	"konsul.dev/services/ca/internal/issuer"
	"konsul.dev/services/ca/internal/keystore"
)

func open(t *testing.T, dir, datacenter string, secret byte) *keystore.Store {
	t.Helper()
	store, err := keystore.Open(dir, datacenter, bytes.Repeat([]byte{secret}, 32), nil)
	require.NoError(t, err)
	return store
}

func state(t *testing.T) *keystore.State {
	t.Helper()
	root, err := issuer.NewRoot("f", time.Now(), time.Hour)
	require.NoError(t, err)
	key, err := issuer.NewKey()
	require.NoError(t, err)
	cert, err := root.SignIntermediate("f", "us-east", &key.PublicKey, time.Now(), time.Hour)
	require.NoError(t, err)
	s := &keystore.State{
		FederationID: "f", PrimaryDatacenter: "us-east", Root: root,
		Intermediate: &issuer.Authority{Certificate: cert, Key: key}, GossipKeys: [][]byte{{1}, {2}},
	}
	s.Roots = append(s.Roots, root.Certificate)
	return s
}

func TestStateSurvivesItsFile(t *testing.T) {
	dir := t.TempDir()
	store := open(t, dir, "us-east", 1)
	none, err := store.Load()
	require.NoError(t, err)
	require.Nil(t, none)

	saved := state(t)
	require.NoError(t, store.Save(saved))
	loaded, err := open(t, dir, "us-east", 1).Load()
	require.NoError(t, err)
	require.Equal(t, saved.FederationID, loaded.FederationID)
	require.Equal(t, saved.GossipKeys, loaded.GossipKeys)
	require.True(t, saved.Root.Key.Equal(loaded.Root.Key))
	require.True(t, saved.Intermediate.Key.Equal(loaded.Intermediate.Key))
	require.True(t, saved.Roots[0].Equal(loaded.Roots[0]))

	info, err := os.Stat(filepath.Join(dir, "ca.sealed"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	sealed, err := os.ReadFile(filepath.Join(dir, "ca.sealed"))
	require.NoError(t, err)
	require.NotContains(t, string(sealed), "federation_id", "nothing is in the clear")
}

func TestEveryChangedBitIsNoticed(t *testing.T) {
	dir := t.TempDir()
	store := open(t, dir, "us-east", 1)
	require.NoError(t, store.Save(state(t)))
	path := filepath.Join(dir, "ca.sealed")
	sealed, err := os.ReadFile(path)
	require.NoError(t, err)
	for _, at := range []int{0, 11, 12, len(sealed) / 2, len(sealed) - 1} {
		damaged := bytes.Clone(sealed)
		damaged[at] ^= 1
		require.NoError(t, os.WriteFile(path, damaged, 0o600))
		_, err := store.Load()
		require.Equal(t, "CA_STATE_SEALED", fault.ReasonOf(err), "byte %d", at)
	}
	for _, length := range []int{0, 5, 12, len(sealed) - 1} {
		require.NoError(t, os.WriteFile(path, sealed[:length], 0o600))
		_, err := store.Load()
		require.Equal(t, "CA_STATE_SEALED", fault.ReasonOf(err), "cut to %d bytes", length)
	}
	require.NoError(t, os.WriteFile(path, sealed, 0o600))
	for name, wrong := range map[string]*keystore.Store{
		"another secret": open(t, dir, "us-east", 2), "another datacenter": open(t, dir, "us-west", 1),
	} {
		_, err := wrong.Load()
		require.Equal(t, "CA_STATE_SEALED", fault.ReasonOf(err), name)
	}
}

func TestABegunJoinIsTheSameUntilItEnds(t *testing.T) {
	dir := t.TempDir()
	first, err := open(t, dir, "us-west", 1).Pending("token-1")
	require.NoError(t, err)
	again, err := open(t, dir, "us-west", 1).Pending("token-1")
	require.NoError(t, err)
	require.True(t, first.Key.Equal(again.Key))

	other, err := open(t, dir, "us-west", 1).Pending("token-2")
	require.NoError(t, err)
	require.False(t, first.Key.Equal(other.Key))

	_, err = open(t, dir, "us-west", 2).Pending("token-2")
	require.Equal(t, "CA_STATE_SEALED", fault.ReasonOf(err))

	store := open(t, dir, "us-west", 1)
	require.NoError(t, store.DropPending())
	require.NoError(t, store.DropPending(), "dropping nothing is fine")
	require.NoFileExists(t, filepath.Join(dir, "join.sealed"))
}

func TestOneSealedFileDoesNotOpenAsAnother(t *testing.T) {
	dir := t.TempDir()
	store := open(t, dir, "us-west", 1)
	_, err := store.Pending("token")
	require.NoError(t, err)
	require.NoError(t, os.Rename(filepath.Join(dir, "join.sealed"), filepath.Join(dir, "ca.sealed")))
	_, err = store.Load()
	require.Equal(t, "CA_STATE_SEALED", fault.ReasonOf(err))
}
