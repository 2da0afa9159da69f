package keyfile_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	"konsul.dev/services/wan-gossip/internal/keyfile"
)

func box(t *testing.T, path, dc, secret string) *keyfile.Box {
	t.Helper()
	b, err := keyfile.New(path, dc, []byte(secret))
	require.NoError(t, err)
	return b
}

func TestKeysSurviveSealedAndOnlyForTheirDatacenter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gossip.key")
	b := box(t, path, "us-east", "secret")
	kept, err := b.Load()
	require.NoError(t, err)
	require.Empty(t, kept)

	keys := [][]byte{bytes.Repeat([]byte{7}, 32), bytes.Repeat([]byte{8}, 32)}
	require.NoError(t, b.Save(keys))
	kept, err = b.Load()
	require.NoError(t, err)
	require.Equal(t, keys, kept)

	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NotContains(t, string(content), string(keys[0]))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	for name, other := range map[string]*keyfile.Box{
		"wrong secret": box(t, path, "us-east", "other"), "wrong datacenter": box(t, path, "us-west", "secret"),
	} {
		_, err = other.Load()
		require.Equal(t, fault.DataLoss, fault.CodeOf(err), name)
	}
	for _, damage := range [][]byte{nil, content[:10], append(bytes.Clone(content[:len(content)-1]), content[len(content)-1]^1)} {
		require.NoError(t, os.WriteFile(path, damage, 0o600))
		_, err = b.Load()
		require.Equal(t, keyfile.ReasonUnreadable, fault.ReasonOf(err))
	}
}
