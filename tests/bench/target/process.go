package target

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// stopLimit is how long a server may take to end by itself.
const stopLimit = 20 * time.Second

// Process is one server.
type Process struct {
	Name string
	// Dir holds its data and its log.
	Dir string

	path string
	args []string

	cmd     *exec.Cmd
	control io.WriteCloser
	exited  chan struct{}
}

// Start starts the server, or starts it again on what it left on its disk.
func (p *Process) Start() error {
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return fmt.Errorf("make directory of %s: %w", p.Name, err)
	}
	log, err := os.OpenFile(p.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log of %s: %w", p.Name, err)
	}
	defer log.Close()
	cmd := exec.Command(p.path, p.args...)
	cmd.Stdout, cmd.Stderr = log, log
	control, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("open control of %s: %w", p.Name, err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	p.cmd, p.control, p.exited = cmd, control, make(chan struct{})
	go func(exited chan<- struct{}) {
		defer close(exited)
		_ = cmd.Wait() // A program ended by a signal says so; that is what was asked.
	}(p.exited)
	return nil
}

// PID is the running server's process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Stop asks the server to end, and ends it when it does not.
func (p *Process) Stop() error {
	if p.cmd == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.Name, err)
	}
	timer := time.NewTimer(stopLimit)
	defer timer.Stop()
	select {
	case <-p.exited:
		p.cmd = nil
		return nil
	case <-timer.C:
		p.Kill()
		return fmt.Errorf("%s did not stop within %v; see %s", p.Name, stopLimit, p.logPath())
	}
}

// Kill ends the server at once, with no chance to save anything.
func (p *Process) Kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.exited
	p.cmd = nil
}

// tell sends the server a command; only our own listen.
func (p *Process) tell(format string, args ...any) error {
	if _, err := fmt.Fprintf(p.control, format+"\n", args...); err != nil {
		return fmt.Errorf("tell %s: %w", p.Name, err)
	}
	return nil
}

func (p *Process) logPath() string { return filepath.Join(p.Dir, "log") }

// Ports come from below those that the kernel gives to whoever connects: a server that was killed
// must find its own free when it comes back.
const (
	leastPort = 15_000
	portsEnd  = 32_000
	portTries = 1000
)

// freeAddresses returns n addresses on loopback that were free a moment ago.
func freeAddresses(n int) ([]string, error) {
	addresses := map[string]bool{}
	for range portTries {
		if len(addresses) == n {
			return slices.Collect(maps.Keys(addresses)), nil
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", leastPort+rand.IntN(portsEnd-leastPort)))
		if err != nil {
			continue // Somebody has it.
		}
		addresses[l.Addr().String()] = true
		if err := l.Close(); err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
	}
	return nil, fmt.Errorf("no %d ports are free between %d and %d", n, leastPort, portsEnd)
}
