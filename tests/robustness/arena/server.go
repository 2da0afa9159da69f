package arena

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"konsul.dev/services/registry"
)

// Server is one place in the cluster: a host, and the server that runs there now.
type Server struct {
	Place int
	ID    string
	// Life counts the processes.
	Life int
	// Dir holds its log, and its disk while the run lasts.
	Dir string

	host    *host
	spec    spec
	cmd     *exec.Cmd
	control io.WriteCloser
	exited  chan struct{}
}

// Running reports whether the server's process is there.
func (s *Server) Running() bool {
	if s.cmd == nil {
		return false
	}
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

// Start starts the server on what its disk holds.
func (s *Server) Start() error {
	log, err := os.OpenFile(filepath.Join(s.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", s.ID, err)
	}
	defer log.Close()
	s.Life++
	fmt.Fprintf(log, "--- %s: life %d\n", s.ID, s.Life)
	path := filepath.Join(s.Dir, "spec.json")
	if err := writeJSON(path, s.spec); err != nil {
		return err
	}
	cmd := exec.Command("nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", s.host.keeper.Process.Pid), "/proc/self/exe")
	if cmd.Args[2], err = os.Executable(); err != nil {
		return fmt.Errorf("find the test binary: %w", err)
	}
	cmd.Env = append(os.Environ(), roleVariable+"="+roleServer, specVariable+"="+path)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	control, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("open the input of %s: %w", s.ID, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.ID, err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait() // Its log says why.
	}()
	s.cmd, s.control, s.exited = cmd, control, exited
	return nil
}

// Kill ends the process at once.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // It may have ended by itself.
	<-s.exited
	s.cmd = nil
}

// Stop asks the process to end.
func (s *Server) Stop() error {
	if !s.Running() {
		return nil
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", s.ID, err)
	}
	timer := time.NewTimer(2 * stopLimit)
	defer timer.Stop()
	select {
	case <-s.exited:
		s.cmd = nil
		return nil
	case <-timer.C:
		return fmt.Errorf("%s did not stop within %v", s.ID, 2*stopLimit)
	}
}

// Pause stops the process where it stands.
func (s *Server) Pause() error { return s.signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (s *Server) Resume() error { return s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) error {
	if !s.Running() {
		return nil
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal %v to %s: %w", sig, s.ID, err)
	}
	return nil
}

// Slow makes every sync of the server's disk take so much longer.
func (s *Server) Slow(d time.Duration) error {
	if !s.Running() {
		return nil
	}
	_, err := fmt.Fprintf(s.control, "slow %v\n", d)
	return err
}

// Fill leaves no room on its disk; Drain makes room again.
func (s *Server) Fill() error { return s.host.fill() }

// Drain undoes Fill.
func (s *Server) Drain() error { return s.host.drain() }

// Deaf makes the server hear nothing from another one, until Hear.
func (s *Server) Deaf(to *Server) error { return s.host.deaf(to.host) }

// Hear undoes every Deaf.
func (s *Server) Hear() error { return s.host.hear() }

// Replace puts a new server with an empty disk into the place of one that does not run; it joins
// through the others.
func (s *Server) Replace(others []*Server) error {
	if err := s.host.wipe(); err != nil {
		return err
	}
	s.ID = fmt.Sprintf("%s.%d", s.ID, s.Life)
	s.spec.ID, s.spec.Servers, s.spec.Join = s.ID, nil, nil
	for _, o := range others {
		if o != s {
			s.spec.Join = append(s.spec.Join, o.Address())
		}
	}
	return s.Start()
}

// Address is where it serves gRPC.
func (s *Server) Address() string { return s.host.address + portGRPC }

func (s *Server) member() registry.Server {
	return registry.Server{ID: s.ID, RaftAddress: s.host.address + portRaft, Address: s.Address()}
}
