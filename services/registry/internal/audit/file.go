package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// rotating is a file that is put aside as PATH.1 when it has grown to a size; older ones move up a
// number, and the oldest goes. It is written by one goroutine at a time.
type rotating struct {
	*os.File
	path string
	max  int64
	keep int
	size int64
}

func openRotating(path string, most int64, keep int) (*rotating, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	r := &rotating{path: path, max: most, keep: keep}
	return r, r.open()
}

func (r *rotating) open() error {
	file, err := os.OpenFile(r.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	r.File, r.size = file, info.Size()
	return nil
}

// Write appends whole lines: a line is never cut in two by a rotation.
func (r *rotating) Write(b []byte) (int, error) {
	if r.size > 0 && r.size+int64(len(b)) > r.max {
		if err := r.rotate(); err != nil {
			return 0, fmt.Errorf("rotate %q: %w", r.path, err)
		}
	}
	n, err := r.File.Write(b)
	r.size += int64(n)
	return n, err
}

func (r *rotating) rotate() error {
	if err := errors.Join(r.Sync(), r.Close()); err != nil {
		return errors.Join(err, r.open())
	}
	name := func(n int) string {
		if n == 0 {
			return r.path
		}
		return fmt.Sprintf("%s.%d", r.path, n)
	}
	err := os.Remove(name(r.keep))
	for n := r.keep - 1; n >= 0 && (err == nil || errors.Is(err, fs.ErrNotExist)); n-- {
		err = os.Rename(name(n), name(n+1))
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, r.open())
}
