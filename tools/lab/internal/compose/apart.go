package compose

import "syscall"

// apart puts a child in a process group of its own, so that Ctrl-C in the terminal reaches only the
// lab.
func apart() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
