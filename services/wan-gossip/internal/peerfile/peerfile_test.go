package peerfile_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/services/wan-gossip/internal/peerfile"
)

func TestPeersSurvive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers.json")
	none, err := peerfile.Load(path)
	require.NoError(t, err)
	require.Empty(t, none)
	require.NoError(t, peerfile.Save(path, []string{"b:1", "a:1", "b:1"}))
	kept, err := peerfile.Load(path)
	require.NoError(t, err)
	require.Equal(t, []string{"a:1", "b:1"}, kept)
	require.NoError(t, os.WriteFile(path, []byte("{"), 0o600))
	_, err = peerfile.Load(path)
	require.ErrorContains(t, err, path)
}
