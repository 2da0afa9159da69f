package process

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Alive reports whether pid is a running process of a program whose name begins with prefix. Where
// the program's name cannot be read, any process counts: pids are reused, but an error is better
// than a second lab over the first one's data.
func Alive(pid int, prefix string) bool {
	err := syscall.Kill(pid, 0)
	if err != nil && !errors.Is(err, syscall.EPERM) {
		return false
	}
	line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		_, procErr := os.Stat("/proc/self/cmdline")
		return procErr != nil
	}
	if len(line) == 0 {
		// A zombie: it has ended, and only its parent has not asked how.
		return false
	}
	program, _, _ := strings.Cut(string(line), "\x00")
	return strings.HasPrefix(filepath.Base(program), prefix)
}
