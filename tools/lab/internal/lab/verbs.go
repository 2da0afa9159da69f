package lab

import (
	"context"
	"fmt"
	"strings"

	"konsul.dev/tools/lab/internal/control"
	"konsul.dev/tools/lab/internal/process"
	"konsul.dev/tools/lab/internal/ready"
	"konsul.dev/tools/lab/internal/show"
)

// tailLines is how much of a dead process's log is shown.
const tailLines = 15

// handle does what another invocation asks.
func (l *Lab) handle(ctx context.Context, request control.Request) ([]control.Datacenter, error) {
	if request.Verb == control.VerbStatus {
		return l.status(), nil
	}
	s, err := l.find(request.Datacenter)
	if err != nil {
		return nil, err
	}
	switch request.Verb {
	case control.VerbStart:
		ctx, cancel := context.WithTimeoutCause(ctx, l.options.Timeout, fmt.Errorf("not ready within %s (--timeout of `up`)", l.options.Timeout))
		defer cancel()
		err = l.start(ctx, s)
	case control.VerbStop:
		err = l.end(s, func() error { return s.group.Stop(ctx) })
	case control.VerbKill:
		err = l.end(s, s.group.Kill)
	default:
		err = fmt.Errorf("unknown request %q: the running lab is of another version", request.Verb)
	}
	return l.status(), err
}

func (l *Lab) find(name string) (*site, error) {
	dc, err := l.layout.Find(name)
	if err != nil {
		return nil, err
	}
	for _, s := range l.sites {
		if s.Name == dc.Name {
			return s, nil
		}
	}
	return nil, fmt.Errorf("no datacenter %q", name)
}

func (l *Lab) end(s *site, how func() error) error {
	s.busy.Lock()
	defer s.busy.Unlock()
	if err := how(); err != nil {
		return err
	}
	return l.writePIDs(s)
}

func (l *Lab) status() []control.Datacenter {
	var all []control.Datacenter
	for _, s := range l.sites {
		dc := control.Datacenter{Name: s.Name, Primary: s.Primary, URL: s.URL()}
		for _, p := range s.group.Members() {
			dc.Processes = append(dc.Processes, control.Process{Name: p.Name(), PID: p.PID(), Running: p.Running(), Log: p.LogFile()})
		}
		all = append(all, dc)
	}
	return all
}

// announce prints the federation, what to try, and the line that scripts wait for.
func (l *Lab) announce(ctx context.Context) error {
	var members []ready.Member
	if err := l.asking(l.layout.Primary(), func(client ready.Federation) (err error) {
		members, err = client.Datacenters(ctx)
		return err
	}); err != nil {
		return fmt.Errorf("ask %s for the federation: %w", l.layout.Primary().Name, err)
	}
	var rows []show.Row
	for _, s := range l.sites {
		row := show.Row{Name: s.Name, Primary: s.Primary, URL: s.URL(), Processes: s.group.Running(), State: "unknown"}
		for _, m := range members {
			if m.Name == s.Name && m.Alive {
				row.State, row.RoundTrip, row.Measured = "alive", m.RoundTrip, m.RoundTrip > 0
			}
		}
		rows = append(rows, row)
	}
	l.output.Lock()
	defer l.output.Unlock()
	show.Federation(l.options.Out, rows)
	show.Try(l.options.Out, l.layout.Dir, l.layout.Bin)
	fmt.Fprintln(l.options.Out, "lab ready")
	return nil
}

// reportEnd tells the person in front that a process died. The lab goes on: that is what it is for.
func (l *Lab) reportEnd(s *site, p *process.Process) {
	end := p.Unexpected()
	if end == nil {
		return
	}
	tail, err := process.Tail(p.LogFile(), tailLines)
	if err != nil {
		tail = err.Error()
	}
	l.output.Lock()
	defer l.output.Unlock()
	if tail == "" {
		fmt.Fprintf(l.options.Err, "%s: %v; it logged nothing\n", s.Name, end)
		return
	}
	fmt.Fprintf(l.options.Err, "%s: %v; the end of %s:\n", s.Name, end, p.LogFile())
	for line := range strings.SplitSeq(tail, "\n") {
		fmt.Fprintf(l.options.Err, "    %s\n", line)
	}
}
