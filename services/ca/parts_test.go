package ca_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
)

// A datacenter's ca folder was emptied to make it join another federation, and its registry stayed
// in the first one: both went on, each for itself.
func TestACAIsOfTheFederationOfWhatIsKeptBesideIt(t *testing.T) {
	first, second := newDatacenter(t, "us-east", "us-east"), newDatacenter(t, "us-east", "us-east")
	for _, primary := range []*datacenter{first, second} {
		require.NoError(t, primary.start())
		<-primary.withRegistry().roots
	}
	west := newDatacenter(t, "us-west", "us-east").useToken(first.token("us-west", time.Hour))
	require.NoError(t, west.start())
	_, err := west.enrollNamed("registry")
	require.NoError(t, err)
	west.stop()
	require.NoError(t, west.start(), "a restart")
	west.stop()

	folder := filepath.Join(west.cfg.Server.DataDir, "ca")
	kept := folder + "-kept"
	require.NoError(t, os.Rename(folder, kept))
	west.useToken(second.token("us-west", time.Hour))
	err = west.start()
	require.Equal(t, "MIXED_FEDERATIONS", fault.ReasonOf(err), "%v", err)
	require.ErrorContains(t, err, "registry is of federation")
	require.Empty(t, west.files(), "it has not joined")

	// The same token is still good for a datacenter that begins anew.
	registry := filepath.Join(west.cfg.Server.DataDir, "registry")
	require.NoError(t, os.Rename(registry, registry+"-kept"))
	require.NoError(t, os.Remove(filepath.Join(registry+"-kept", "identity.pem")))
	require.NoError(t, west.start())
	west.stop()

	_, err = second.enrollNamed("registry")
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(folder))
	require.NoError(t, os.Rename(kept, folder))
	require.NoError(t, os.CopyFS(registry, os.DirFS(filepath.Join(second.cfg.Server.DataDir, "registry"))))
	require.Equal(t, "MIXED_FEDERATIONS", fault.ReasonOf(west.start()), "a state of another federation")
}
