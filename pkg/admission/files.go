package admission

import (
	"fmt"
	"syscall"
)

// OpenFiles returns how many files, sockets among them, this process may have open (RLIMIT_NOFILE).
// Go raises it as far as the process may by itself.
func OpenFiles() (uint64, error) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return 0, fmt.Errorf("ask how many files may be open: %w", err)
	}
	return files.Cur, nil
}
