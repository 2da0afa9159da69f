package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"konsul.dev/pkg/ops"
	"konsul.dev/tools/lab/internal/plan"
	"konsul.dev/tools/lab/internal/process"
	"konsul.dev/tools/lab/internal/ready"
)

// settleTime is how long a process that has just been killed may take to be noticed.
const settleTime = 500 * time.Millisecond

// bringUp starts the primary, admits the others, and waits until all three serve and see each
// other. A reused folder's datacenters are members already.
func (l *Lab) bringUp(ctx context.Context, reused bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, l.options.Timeout,
		fmt.Errorf("not ready within %s (--timeout)", l.options.Timeout))
	defer cancel()
	primary, others := l.sites[0], l.sites[1:]
	l.say("starting %s, the primary, on %s", primary.Name, primary.URL())
	if err := l.start(ctx, primary); err != nil {
		return err
	}
	if !reused {
		if err := l.asking(primary.Datacenter, func(client ready.Federation) error { return l.admit(ctx, primary, client) }); err != nil {
			return err
		}
	}
	errs := make([]error, len(others))
	var wg sync.WaitGroup
	for i, s := range others {
		l.say("starting %s on %s", s.Name, s.URL())
		wg.Go(func() { errs[i] = l.start(ctx, s) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, s := range l.sites {
		if err := l.asking(s.Datacenter, func(client ready.Federation) error {
			return l.await(ctx, s, "every datacenter alive in its gossip", func(ctx context.Context) error { return ready.Connected(ctx, client, l.layout.Names()) })
		}); err != nil {
			return err
		}
	}
	return nil
}

// admit makes the join tokens of the secondaries. Services of a datacenter that serves may still be
// about to find each other, and a token that nobody heard of does no harm.
func (l *Lab) admit(ctx context.Context, s *site, primary ready.Federation) error {
	for _, dc := range l.layout.Secondaries() {
		var token string
		err := l.await(ctx, s, "the join token of "+dc.Name, func(ctx context.Context) (err error) {
			token, err = primary.CreateJoinToken(ctx, dc.Name)
			return err
		})
		if err != nil {
			return fmt.Errorf("make join token of %s: %w", dc.Name, err)
		}
		if err := write(dc.JoinTokenFile(), []byte(token+"\n")); err != nil {
			return err
		}
	}
	return nil
}

// start starts a datacenter's processes and waits until it serves.
func (l *Lab) start(ctx context.Context, s *site) error {
	s.busy.Lock()
	defer s.busy.Unlock()
	if s.group.Whole(settleTime) {
		return fmt.Errorf("%s still runs: `konsul-lab stop %s` first", s.Name, s.Name)
	}
	// Ends what survived, as half a datacenter is no start for a whole one, and forgets the dead.
	if err := s.group.Kill(); err != nil {
		return err
	}
	startErr := s.group.Start(l.layout.Specs(s.Datacenter))
	if err := errors.Join(startErr, l.writePIDs(s)); err != nil {
		return err
	}
	for _, name := range l.layout.Programs() {
		probe := func(ctx context.Context) error { return ops.Probe(ctx, s.DataDir(), name) }
		if err := l.await(ctx, s, name+" ready", probe); err != nil {
			return err
		}
	}
	if err := publishRoots(s.Datacenter); err != nil {
		return err
	}
	if err := l.writeEnv(s.Datacenter); err != nil {
		return err
	}
	return l.asking(s.Datacenter, func(client ready.Federation) error {
		return l.await(ctx, s, "its edge taking the management token, and its samples healthy", func(ctx context.Context) error { return ready.Serves(ctx, client, plan.SampleNames()) })
	})
}

// publishRoots copies the federation's trust anchors to where clients look for them.
func publishRoots(dc plan.Datacenter) error {
	roots, err := os.ReadFile(filepath.Join(dc.DataDir(), "ca", "roots.pem"))
	if err != nil {
		return fmt.Errorf("read trust anchors of %s: %w", dc.Name, err)
	}
	return write(dc.RootsFile(), roots)
}

// asking lends ask a client of a datacenter's edge.
func (l *Lab) asking(dc plan.Datacenter, ask func(ready.Federation) error) error {
	client, err := l.options.Connect(dc.URL(), l.layout.Primary().TokenFile(), dc.RootsFile())
	if err != nil {
		return err
	}
	return errors.Join(ask(client), client.Close())
}

// await looks until look answers nil. It gives up when ctx ends or a process of the datacenter
// dies.
func (l *Lab) await(ctx context.Context, s *site, what string, look func(context.Context) error) error {
	return ready.Await(ctx, s.Name+": "+what, look, func() error {
		if dead := firstDeath(s.group.Members()); dead != nil {
			return fmt.Errorf("%s: %w", s.Name, dead)
		}
		return nil
	})
}

func firstDeath(members []*process.Process) error {
	for _, p := range members {
		if err := p.Unexpected(); err != nil {
			return err
		}
	}
	return nil
}
