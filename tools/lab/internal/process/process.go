// Package process runs the lab's child processes and ends them.
//
// A child dies with the lab: on Linux the kernel kills it when the lab's spawning thread ends, so
// that even kill -9 of the lab leaves nothing behind. A child that ends without being asked is
// reported once. All types are safe for concurrent use.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Spec says what to run.
type Spec struct {
	// Name tells the process from its siblings, e.g. "konsul-gateway".
	Name string
	// Path of the program.
	Path string
	Args []string
	// Env is added to the lab's own environment.
	Env []string
	// LogFile receives both outputs, appended.
	LogFile string
	// Grace is how long a stop waits after SIGTERM before it kills.
	Grace time.Duration
}

// Process is one started child.
type Process struct {
	spec Spec
	cmd  *exec.Cmd
	done chan struct{}

	mu     sync.Mutex
	ending bool
	err    error
}

// Spawner starts processes from one thread that lives as long as it does: the kernel ties a child's
// life to the thread that started it, not to the process.
type Spawner struct {
	requests chan func()
	closed   chan struct{}
	close    sync.Once
}

// Name returns the spec's name.
func (p *Process) Name() string { return p.spec.Name }

// LogFile returns where the process writes.
func (p *Process) LogFile() string { return p.spec.LogFile }

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running reports whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Unexpected returns how the process ended if it did so without being asked, else nil.
func (p *Process) Unexpected() error {
	if p.Running() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ending {
		return nil
	}
	return fmt.Errorf("%s ended by itself: %w", p.spec.Name, p.err)
}

// Stop asks the process to end, waits for the grace period or for ctx, then kills it. It returns
// when the process is gone.
func (p *Process) Stop(ctx context.Context) error {
	p.markEnding()
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	grace := time.NewTimer(p.spec.Grace)
	defer grace.Stop()
	select {
	case <-p.done:
		return nil
	case <-grace.C:
	case <-ctx.Done():
	}
	if err := p.Kill(); err != nil {
		return err
	}
	return fmt.Errorf("%s did not end within %s of SIGTERM and was killed; see %s", p.spec.Name, p.spec.Grace, p.spec.LogFile)
}

// Reload tells the process to take in what changed (SIGHUP).
func (p *Process) Reload() error { return p.signal(syscall.SIGHUP) }

// Kill ends the process at once and returns when it is gone.
func (p *Process) Kill() error {
	p.markEnding()
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}

func (p *Process) markEnding() {
	p.mu.Lock()
	defer p.mu.Unlock()
	// One that died before it was asked stays unexpected.
	if p.Running() {
		p.ending = true
	}
}

func (p *Process) signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %s to %s: %w", sig, p.spec.Name, err)
	}
	return nil
}

// NewSpawner returns a spawner; Close it when all its children have ended.
func NewSpawner() *Spawner {
	s := &Spawner{requests: make(chan func()), closed: make(chan struct{})}
	go s.loop()
	return s
}

// Close ends the spawner's thread. What it started and still runs is killed by the kernel, where it
// can.
func (s *Spawner) Close() { s.close.Do(func() { close(s.closed) }) }

// Start starts a process. onExit, unless nil, is called once when it has ended, asked for or not.
func (s *Spawner) Start(spec Spec, onExit func(*Process)) (*Process, error) {
	if err := os.MkdirAll(filepath.Dir(spec.LogFile), 0o700); err != nil {
		return nil, fmt.Errorf("make log folder of %s: %w", spec.Name, err)
	}
	log, err := os.OpenFile(spec.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", spec.Name, err)
	}
	// The child has its own descriptor of the log once it runs.
	defer func() { _ = log.Close() }()
	// A child ends by Stop and Kill, in order, not with whoever asked for its start.
	cmd := exec.CommandContext(context.Background(), spec.Path, spec.Args...)
	cmd.Env = append(os.Environ(), spec.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = tied()
	if err := s.start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	p := &Process{spec: spec, cmd: cmd, done: make(chan struct{})}
	go p.reap(onExit)
	return p, nil
}

func (p *Process) reap(onExit func(*Process)) {
	err := p.cmd.Wait()
	if err == nil {
		err = errors.New("exit status 0")
	}
	p.mu.Lock()
	p.err = err
	close(p.done)
	p.mu.Unlock()
	if onExit != nil {
		onExit(p)
	}
}
