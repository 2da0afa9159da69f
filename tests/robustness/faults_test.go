package robustness_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/tests/robustness/arena"
	"konsul.dev/tests/robustness/history"
)

// nemesis breaks things. It belongs to one goroutine.
type nemesis struct {
	cluster  *arena.Cluster
	recorder *history.Recorder
	traffic  *traffic
	chance   *rand.Rand
}

// fault breaks something and returns how to mend it.
type breakage struct {
	name  string
	cause func(ctx context.Context, n *nemesis) (mend func() error, err error)
}

// breakages are all faults, by name.
func breakages() []breakage {
	return []breakage{
		{"kill leader", onLeader(kill)},
		{"kill follower", onFollower(kill)},
		{"pause leader", onLeader(suspend)},
		{"pause follower", onFollower(suspend)},
		{"cut leader off", onLeader(isolate(true, true))},
		{"cut follower off", onFollower(isolate(true, true))},
		{"leader hears nobody", onLeader(isolate(true, false))},
		{"nobody hears leader", onLeader(isolate(false, true))},
		{"follower hears nobody", onFollower(isolate(true, false))},
		{"leader's disk is full", onLeader(fill)},
		{"follower's disk is full", onFollower(fill)},
		{"leader's disk is slow", onLeader(slow)},
		{"all disks are slow", func(ctx context.Context, n *nemesis) (func() error, error) {
			var mends []func() error
			for _, s := range n.cluster.Servers {
				mend, err := slow(n, s)
				if err != nil {
					return nil, err
				}
				mends = append(mends, mend)
			}
			return all(mends...), nil
		}},
		{"restart all", restartAll},
		{"kill majority", func(ctx context.Context, n *nemesis) (func() error, error) {
			spared := n.follower(ctx)
			var mends []func() error
			for _, s := range n.cluster.Servers {
				if s != spared {
					mend, _ := kill(n, s)
					mends = append(mends, mend)
				}
			}
			return all(mends...), nil
		}},
		{"transfer leadership", transfer},
		{"replace a member", replace},
	}
}

func all(mends ...func() error) func() error {
	return func() error {
		var errs []error
		for _, mend := range mends {
			errs = append(errs, mend())
		}
		return errors.Join(errs...)
	}
}

type onServer func(n *nemesis, s *arena.Server) (func() error, error)

func onLeader(do onServer) func(context.Context, *nemesis) (func() error, error) {
	return func(ctx context.Context, n *nemesis) (func() error, error) { return do(n, n.leader(ctx)) }
}

func onFollower(do onServer) func(context.Context, *nemesis) (func() error, error) {
	return func(ctx context.Context, n *nemesis) (func() error, error) { return do(n, n.follower(ctx)) }
}

// leader returns who leads, or any server if nobody does.
func (n *nemesis) leader(ctx context.Context) *arena.Server {
	if s := n.cluster.Leader(ctx); s != nil {
		return s
	}
	return n.cluster.Servers[n.chance.IntN(len(n.cluster.Servers))]
}

func (n *nemesis) follower(ctx context.Context) *arena.Server {
	leader := n.leader(ctx)
	return n.cluster.Servers[(leader.Place+1+n.chance.IntN(len(n.cluster.Servers)-1))%len(n.cluster.Servers)]
}

// start starts a server and tells the clients that it is another process.
func (n *nemesis) start(s *arena.Server) error {
	err := s.Start()
	n.traffic.reborn(s)
	return err
}

func (t *traffic) reborn(s *arena.Server) {
	t.ids[s.Place].Store(s.ID)
	t.lives[s.Place].Add(1)
}

func kill(n *nemesis, s *arena.Server) (func() error, error) {
	s.Kill()
	n.traffic.lives[s.Place].Add(1)
	return func() error { return n.start(s) }, nil
}

func suspend(_ *nemesis, s *arena.Server) (func() error, error) { return s.Resume, s.Pause() }

// isolate cuts the wires between a server and the others; clients reach it still.
func isolate(in, out bool) onServer {
	return func(n *nemesis, s *arena.Server) (func() error, error) {
		var errs []error
		for _, o := range n.cluster.Servers {
			if o == s {
				continue
			}
			if in {
				errs = append(errs, s.Deaf(o))
			}
			if out {
				errs = append(errs, o.Deaf(s))
			}
		}
		return func() error {
			var errs []error
			for _, o := range n.cluster.Servers {
				errs = append(errs, o.Hear())
			}
			return errors.Join(errs...)
		}, errors.Join(errs...)
	}
}

// fill leaves no room on the disk. The server may end; it must come back with all it acknowledged.
func fill(n *nemesis, s *arena.Server) (func() error, error) {
	return func() error {
		err := s.Drain()
		if !s.Running() {
			n.recorder.Fault("%s ended for want of room", s.ID)
		}
		s.Kill() // One that goes on may have given up on its disk without knowing.
		n.traffic.lives[s.Place].Add(1)
		return errors.Join(err, n.start(s))
	}, s.Fill()
}

func slow(n *nemesis, s *arena.Server) (func() error, error) {
	d := time.Duration(20+n.chance.IntN(180)) * time.Millisecond
	return func() error { return s.Slow(0) }, s.Slow(d)
}

func restartAll(_ context.Context, n *nemesis) (func() error, error) {
	var mends []func() error
	for _, s := range n.cluster.Servers {
		mend, _ := kill(n, s)
		mends = append(mends, mend)
	}
	return nil, all(mends...)()
}

func transfer(ctx context.Context, n *nemesis) (func() error, error) {
	ctx, cancel := context.WithTimeout(arena.Authorize(ctx), 5*time.Second)
	defer cancel()
	_, err := n.cluster.Client(n.leader(ctx).Place).Operator.TransferLeadership(ctx, &registryv1.TransferLeadershipRequest{})
	if err != nil {
		n.recorder.Fault("transfer: %v", err)
	}
	return nil, nil
}

// replace buries a server for good; another one with an empty disk takes its place.
func replace(ctx context.Context, n *nemesis) (func() error, error) {
	s, id := n.follower(ctx), ""
	id = s.ID
	s.Kill()
	n.traffic.lives[s.Place].Add(1)
	return func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleLimit)
		defer cancel()
		if err := n.until(ctx, func(ctx context.Context) error {
			_, err := n.cluster.Client((s.Place+1)%len(n.cluster.Servers)).Operator.RemovePeer(ctx, &registryv1.RemovePeerRequest{Id: id})
			return err
		}); err != nil {
			return fmt.Errorf("remove %s: %w", id, err)
		}
		err := s.Replace(n.cluster.Servers)
		n.traffic.reborn(s)
		return err
	}, nil
}

// until repeats a call until it succeeds or ctx ends.
func (n *nemesis) until(ctx context.Context, call func(context.Context) error) error {
	for {
		limited, cancel := context.WithTimeout(arena.Authorize(ctx), 2*time.Second)
		err := call(limited)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		n.rest(ctx, 50)
	}
}

// swift makes a new server a voter soon.
func (n *nemesis) swift(ctx context.Context) error {
	return n.until(ctx, func(ctx context.Context) error {
		_, err := n.cluster.Client(0).Operator.SetAutopilotConfig(ctx, &registryv1.SetAutopilotConfigRequest{
			Config: &registryv1.AutopilotConfig{ServerStabilizationTime: durationpb.New(200 * time.Millisecond)},
		})
		return err
	})
}

// torment breaks and mends one thing after the other until ctx ends or nothing is left to break; in
// the end all is mended.
func (n *nemesis) torment(ctx context.Context, what []breakage) error {
	for _, b := range what {
		if ctx.Err() != nil {
			return nil
		}
		n.recorder.Fault("%s (%s leads)", b.name, n.leader(ctx).ID)
		mend, err := b.cause(ctx, n)
		if err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
		n.rest(ctx, 400+n.chance.IntN(1000))
		if mend != nil {
			n.recorder.Fault("mend: %s", b.name)
			if err := mend(); err != nil {
				return fmt.Errorf("mend %s: %w", b.name, err)
			}
		}
		n.rest(ctx, 300+n.chance.IntN(700))
	}
	return nil
}

func (n *nemesis) rest(ctx context.Context, milliseconds int) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(milliseconds) * time.Millisecond):
	}
}
