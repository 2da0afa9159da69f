//go:build unix

package freespace

import "golang.org/x/sys/unix"

// Available returns how many bytes this process may still write where a folder lies.
func Available(dir string) (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, err
	}
	return uint64(fs.Bavail) * uint64(fs.Bsize), nil //nolint:gosec,unconvert // the types differ between systems
}
