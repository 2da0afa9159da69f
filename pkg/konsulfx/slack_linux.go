package konsulfx

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// kernelSlack is by how many nanoseconds Linux lets a thread's timers be late unless it is told otherwise.
	kernelSlack = 50_000
	// ownSlack is by how many a service's may be. None of its own timers counts in less than milliseconds, but a thread of Go's
	// (sysmon) wakes every 20 us while a system call such as fsync is under way: an eighth of a registry's processor
	// time under load, a third of its switches of threads with one client. Measured by turns: a put with one client takes a
	// quarter less processor time, one of 64 or 256 clients a tenth. With 4 ms a lone put takes longer.
	ownSlack = 1_000_000
)

// SetTimerSlack lets the timers of all threads of this program be a millisecond late. Threads inherit that from the one
// that starts them, and Go has started some before any of our code runs, so the program is executed once more, as the same process. Whoever has
// set a slack from outside (systemd's TimerSlackNSec=) keeps it; where it cannot be set the program goes on without.
// Main calls it; call it before anything is opened.
func SetTimerSlack() {
	if slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err != nil || slack != kernelSlack {
		return
	}
	path, err := os.Executable()
	if err != nil || unix.Prctl(unix.PR_SET_TIMERSLACK, ownSlack, 0, 0, 0) != nil {
		return
	}
	// It returns only if it failed: then this thread alone has the slack, which does no harm.
	_ = syscall.Exec(path, os.Args, os.Environ())
}
