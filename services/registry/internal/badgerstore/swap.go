package badgerstore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// swap is a sequence of encoded rows that only grows. Its beginning lies in a file without a name, which nobody syncs: it is the page cache that holds it, and
// gives the memory to others when they need it, and in most cases it is gone before the disk has heard of it. The file goes when nobody refers to it any more.
//
// One goroutine appends; a copy can be read at the same time as far as it went when it was made.
type swap struct {
	dir        string
	spillBytes int

	file    *os.File
	written int64
	// buffer is what follows what is written. What is in it does not change.
	buffer []byte
}

// swapFiles is the pattern of the files' names, as long as they have any.
const swapFiles = "tail-*"

// size is where the next row comes.
func (s *swap) size() int64 { return s.written + int64(len(s.buffer)) }

func (s *swap) append(row *registryv1.Record) (err error) {
	if s.buffer == nil {
		s.buffer = make([]byte, 0, s.spillBytes+s.spillBytes/8)
	}
	s.buffer, err = appendRow(s.buffer, row)
	return err
}

// spill writes what is in memory to the file, if it is much.
func (s *swap) spill() {
	if len(s.buffer) >= s.spillBytes {
		s.flush()
	}
}

// flush writes what is in memory to the file. What cannot be written stays where it is: nothing is lost but room.
func (s *swap) flush() {
	if len(s.buffer) == 0 {
		return
	}
	if s.file == nil {
		file, err := swapFile(s.dir)
		if err != nil {
			return
		}
		s.file = file
	}
	if _, err := s.file.WriteAt(s.buffer, s.written); err != nil {
		return
	}
	s.written, s.buffer = s.size(), nil
}

// read answers a copy of what lies at a place.
func (s *swap) read(at int64, size int) ([]byte, error) {
	if at >= s.written {
		start := int(at - s.written)
		return bytes.Clone(s.buffer[start : start+size]), nil
	}
	out := make([]byte, size)
	if _, err := s.file.ReadAt(out, at); err != nil {
		return nil, fmt.Errorf("read a row of the tail: %w", err)
	}
	return out, nil
}

// swapFile answers an open file without a name.
func swapFile(dir string) (*os.File, error) {
	file, err := os.CreateTemp(dir, swapFiles)
	if err != nil {
		return nil, fmt.Errorf("make a file for the tail: %w", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// removeSwapFiles removes files that a process left which was killed before they had lost their names.
func removeSwapFiles(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, swapFiles))
	if err != nil {
		return fmt.Errorf("list the tail's files: %w", err)
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove a file of the tail: %w", err)
		}
	}
	return nil
}
