// Package lab runs a three-datacenter federation on this machine: it lays it out, starts it, waits
// until it serves, does what other invocations ask of it, and ends it without a trace.
//
// A Lab is used by one Up at a time; its control handler may run concurrently with everything else.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"konsul.dev/tools/lab/internal/control"
	"konsul.dev/tools/lab/internal/plan"
	"konsul.dev/tools/lab/internal/portcheck"
	"konsul.dev/tools/lab/internal/process"
	"konsul.dev/tools/lab/internal/ready"
)

// Options is how to run a lab.
type Options struct {
	Layout plan.Layout
	// Keep leaves secrets and data in the folder for the next lab.
	Keep bool
	// Timeout bounds the way to `lab ready`, and each later start of a datacenter.
	Timeout time.Duration
	// Connect returns a client of the edge at url.
	Connect func(url, tokenFile, rootsFile string) (ready.Federation, error)
	// Reload asks for a reload of every process; nil: nobody does.
	Reload <-chan os.Signal
	Out    io.Writer
	Err    io.Writer
}

// Lab is a running federation.
type Lab struct {
	options Options
	layout  plan.Layout
	token   string
	sites   []*site
	spawner *process.Spawner

	// output guards the writers against lines of two goroutines mixing.
	output sync.Mutex
}

// site is one datacenter with its processes.
type site struct {
	plan.Datacenter
	group *process.Group

	// busy is held while the datacenter is started, stopped or killed.
	busy sync.Mutex
}

var errInterrupted = errors.New("interrupted before the lab was ready")

// Up runs a lab until ctx ends or it cannot come up. It returns when everything it started is gone.
func Up(ctx context.Context, options Options) (err error) {
	folder, err := acquire(options.Layout)
	if err != nil {
		return err
	}
	// After the folder: a lab that runs there already explains taken ports better than their
	// numbers do.
	if err := portcheck.Check(options.Layout.Needs()); err != nil {
		err = fmt.Errorf("%w\nfree what is taken, or choose other addresses, such as --network 127.0.28", err)
		return errors.Join(err, folder.giveBack())
	}
	lab := newLab(options)
	defer lab.spawner.Close()
	defer func() {
		keepLogs := err != nil && !errors.Is(err, errInterrupted)
		err = errors.Join(err, lab.stopAll(), folder.release(options.Keep, keepLogs))
	}()
	if err := lab.writeFiles(folder.reused); err != nil {
		return err
	}
	if err := lab.bringUp(ctx, folder.reused); err != nil {
		if ctx.Err() != nil {
			return errInterrupted
		}
		return fmt.Errorf("%w\nthe logs stay in %s until the next start", err, options.Layout.Dir)
	}
	return lab.serve(ctx)
}

func newLab(options Options) *Lab {
	l := &Lab{options: options, layout: options.Layout, spawner: process.NewSpawner()}
	for _, dc := range options.Layout.Datacenters {
		s := &site{Datacenter: dc}
		s.group = process.NewGroup(l.spawner, func(p *process.Process) { l.reportEnd(s, p) })
		l.sites = append(l.sites, s)
	}
	return l
}

// serve does what other invocations ask until ctx ends.
func (l *Lab) serve(ctx context.Context) error {
	wait, err := control.Serve(ctx, l.layout.Dir, l.handle)
	if err != nil {
		return err
	}
	if err := l.announce(ctx); err != nil {
		return errors.Join(err, wait())
	}
	for {
		select {
		case <-l.options.Reload:
			l.reload()
		case <-ctx.Done():
			l.say("stopping")
			return wait()
		}
	}
}

// reload passes a hang-up on to every process, whose logs say what came of it.
func (l *Lab) reload() {
	for _, s := range l.sites {
		if err := s.group.Reload(); err != nil {
			l.say("%s could not be told to reload: %v", s.Name, err)
			continue
		}
		l.say("%s reloads; its log says what", s.Name)
	}
}

// stopAll ends every datacenter, all at the same time, as none depends on another.
func (l *Lab) stopAll() error {
	errs := make([]error, len(l.sites))
	var wg sync.WaitGroup
	for i, s := range l.sites {
		wg.Go(func() {
			s.busy.Lock()
			defer s.busy.Unlock()
			errs[i] = s.group.Stop(context.Background())
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// say prints one line for the person in front.
func (l *Lab) say(format string, args ...any) {
	l.output.Lock()
	defer l.output.Unlock()
	fmt.Fprintf(l.options.Out, format+"\n", args...)
}
