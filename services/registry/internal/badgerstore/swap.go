package badgerstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// swap is an append-only sequence of encoded rows. Its beginning lies in a file without a name,
// which nobody syncs: the page cache holds it, and gives the memory to others when they need it; in
// most cases it is gone before its pages are due for the disk. The file is closed when the
// collector finds that nobody refers to it.
//
// One goroutine appends, and nobody reads meanwhile what is in memory.
type swap struct {
	dir string
	// spillBytes is about how much is written at once; at due it is tried the next time.
	spillBytes, due int

	file    *os.File
	written int64
	// buffer is what follows what is written.
	buffer []byte
}

// swapFiles is the pattern of the files' names, as long as they have any.
const swapFiles = "tail-*"

// size is where the next row comes.
func (s *swap) size() int64 { return s.written + int64(len(s.buffer)) }

// append appends a row, and writes what is in memory to the file if it is much.
func (s *swap) append(row *registryv1.Record) (err error) {
	if s.buffer == nil {
		s.buffer = make([]byte, 0, s.spillBytes+s.spillBytes/8)
	}
	if s.buffer, err = appendRow(s.buffer, row); err == nil && len(s.buffer) >= max(s.due, s.spillBytes) {
		s.flush()
	}
	return err
}

// flush writes what is in memory to the file. What cannot be written stays where it is: nothing is
// lost but room.
func (s *swap) flush() {
	if err := s.write(); err != nil {
		s.due = 2 * len(s.buffer) // A disk that is full will be for a while.
		return
	}
	s.written, s.buffer, s.due = s.size(), s.buffer[:0], 0
}

func (s *swap) write() (err error) {
	if len(s.buffer) == 0 {
		return nil
	}
	if s.file == nil {
		if s.file, err = swapFile(s.dir); err != nil {
			return err
		}
	}
	if _, err := s.file.WriteAt(s.buffer, s.written); err != nil {
		return fmt.Errorf("write rows of the memtable: %w", err)
	}
	return nil
}

// end writes what is in memory to the file, if that is possible, and returns a buffer for another
// swap.
func (s *swap) end() (spare []byte) {
	if s.flush(); len(s.buffer) == 0 && cap(s.buffer) <= 2*s.spillBytes {
		spare, s.buffer = s.buffer, nil
	}
	return spare
}

// copy copies what lies at a place if that is in memory, or else returns the file where it lies.
func (s *swap) copy(out []byte, at int64) *os.File {
	if at < s.written {
		return s.file
	}
	copy(out, s.buffer[at-s.written:])
	return nil
}

// swapFile returns an open file without a name.
func swapFile(dir string) (*os.File, error) {
	file, err := os.CreateTemp(dir, swapFiles)
	if err != nil {
		return nil, fmt.Errorf("make a file for the memtable: %w", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// removeSwapFiles removes files that a process left which was killed before they had lost their
// names.
func removeSwapFiles(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, swapFiles))
	if err != nil {
		return fmt.Errorf("list the memtable's files: %w", err)
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove a file of the memtable: %w", err)
		}
	}
	return nil
}
