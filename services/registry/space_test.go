package registry_test

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry"
	"konsul.dev/services/registry/registrytest"
)

func TestTheLogStaysBoundedWhateverTheSizeOfItsEntries(t *testing.T) {
	t.Parallel()
	dirs := []string{}
	c := registrytest.Start(t, 3, registrytest.Options{Adjust: func(cfg *registry.Config) {
		r := &cfg.Registry.Raft
		r.SnapshotBytes, r.TrailingBytes, r.SegmentBytes = 4<<20, 1<<20, 1<<20
		dirs = append(dirs, filepath.Join(cfg.Server.DataDir, registry.Name, "raft", "log"))
	}})
	cl := c.Client(c.Servers[0])
	value := make([]byte, 256<<10)
	const writes = 160 // 40 MiB, in far fewer entries than SnapshotThreshold
	for i := range writes {
		_, err := cl.KV.Set(cl.Ctx(), &registryv1.SetRequest{Key: fmt.Sprintf("k%d", i%8), Value: value})
		require.NoError(t, err)
	}
	for _, dir := range dirs {
		c.Eventually(func() error {
			size := int64(0)
			err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
				if err != nil || entry.IsDir() {
					return err
				}
				info, err := entry.Info()
				if err == nil {
					size += info.Size()
				}
				return err
			})
			// A snapshot's worth of log, 64 large entries behind it, and a segment each that is
			// begun or not yet dropped.
			if behind := int64(64 * len(value)); err == nil && size > 8<<20+behind {
				err = fmt.Errorf("%d bytes of log after %d bytes of values", size, writes*len(value))
			}
			if errors.Is(err, fs.ErrNotExist) {
				err = nil // A segment was dropped while we looked.
			}
			return err
		})
	}
}
