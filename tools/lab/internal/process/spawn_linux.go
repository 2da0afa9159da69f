package process

import (
	"errors"
	"os/exec"
	"runtime"
	"syscall"
)

// tied puts a child in a group of its own, so that Ctrl-C in the terminal reaches only the lab, and
// has the kernel kill it when the spawning thread ends.
func tied() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func (s *Spawner) loop() {
	// Never unlocked: the thread ends with this goroutine and takes forgotten children with it.
	runtime.LockOSThread()
	for {
		select {
		case request := <-s.requests:
			request()
		case <-s.closed:
			return
		}
	}
}

func (s *Spawner) start(cmd *exec.Cmd) error {
	result := make(chan error, 1)
	select {
	case s.requests <- func() { result <- cmd.Start() }:
		return <-result
	case <-s.closed:
		return errors.New("the lab is stopping")
	}
}
