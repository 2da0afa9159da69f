//go:build !linux

package process

import (
	"errors"
	"os/exec"
	"syscall"
)

// tied puts a child in a group of its own, so that Ctrl-C in the terminal reaches only the lab.
// Nothing here ends a child whose parent was killed: the next lab finds it by its pid file.
func tied() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func (s *Spawner) loop() {
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
