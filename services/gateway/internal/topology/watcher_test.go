package topology_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/clock"
	"konsul.dev/services/gateway/internal/topology"
)

func TestAnUnusableFileIsLearntAnew(t *testing.T) {
	for name, content := range map[string]string{"damaged": "{", "empty": "", "other": "[]"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "topology.json")
			require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
			told := 0
			w := topology.New(topology.Params{
				Datacenter: "us-east", Path: path, Clock: clock.System(), Log: slog.New(slog.DiscardHandler),
				Changed: func(remotes map[string][]string) {
					told++
					require.Empty(t, remotes)
				},
			})
			require.Equal(t, 1, told)
			require.Empty(t, w.Remotes())
		})
	}
}
