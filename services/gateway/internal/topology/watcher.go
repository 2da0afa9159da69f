package topology

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/obs"
)

// How often the registry is asked: often while no other datacenter is known.
const (
	pollAlone   = time.Second
	pollUsual   = 15 * time.Second
	callTimeout = 5 * time.Second
	retryMin    = 200 * time.Millisecond
	retryMax    = 2 * time.Second
)

// Params is what a Watcher is made of.
type Params struct {
	Datacenter string
	Gossip     wangossipv1.DatacenterServiceClient
	Registry   federationv1.FederationServiceClient
	// Path is the file that keeps what is known.
	Path string
	// Changed is told of every change, and once at the start; calls do not overlap.
	Changed func(remotes map[string][]string)
	Clock   clock.Clock
	Log     *slog.Logger
}

// Watcher keeps track of the datacenters.
type Watcher struct {
	p Params

	mu    sync.Mutex
	known Known
}

// New returns a watcher that knows what the file says. A file that cannot be used is set aside by
// the next change: what it held can be learnt again.
func New(p Params) *Watcher {
	w := &Watcher{p: p}
	known, err := load(p.Path)
	switch {
	case err == nil:
		w.known = known
	case !errors.Is(err, os.ErrNotExist):
		p.Log.Warn("kept topology is of no use; learning it anew", obs.KeyError, err)
	}
	p.Changed(w.known.Remotes())
	return w
}

// Remotes returns the gateways of every known datacenter.
func (w *Watcher) Remotes() map[string][]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known.Remotes()
}

// WatchGossip follows gossip until ctx ends.
func (w *Watcher) WatchGossip(ctx context.Context) error {
	retry := backoff.New(retryMin, retryMax)
	for {
		err := w.follow(ctx, retry.Reset)
		if ctx.Err() != nil {
			return nil
		}
		w.p.Log.Debug("gossip does not answer; using what is known", obs.KeyError, err)
		if retry.Wait(ctx) != nil {
			return nil
		}
	}
}

func (w *Watcher) follow(ctx context.Context, heard func()) error {
	stream, err := w.p.Gossip.WatchDatacenters(ctx, &wangossipv1.WatchDatacentersRequest{})
	if err != nil {
		return fmt.Errorf("watch datacenters: %w", err)
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("watch datacenters: %w", err)
		}
		heard()
		seen := map[string][]string{}
		for _, dc := range message.GetDatacenters() {
			if dc.GetName() != w.p.Datacenter {
				seen[dc.GetName()] = dc.GetGatewayAddresses()
			}
		}
		w.update(func(k Known) (Known, bool) { return k.withGossip(seen, w.p.Clock.Now()) })
	}
}

// PollRegistry reads the federation record now and then until ctx ends.
func (w *Watcher) PollRegistry(ctx context.Context) error {
	for {
		if err := w.poll(ctx); err != nil && ctx.Err() == nil {
			w.p.Log.Debug("registry does not answer; using what is known", obs.KeyError, err)
		}
		pause := pollUsual
		if len(w.Remotes()) == 0 {
			pause = pollAlone
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.p.Clock.After(pause):
		}
	}
}

func (w *Watcher) poll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := w.p.Registry.GetFederation(ctx, &federationv1.GetFederationRequest{})
	if err != nil {
		return fmt.Errorf("read federation record: %w", err)
	}
	members := map[string][]string{}
	for _, dc := range resp.GetFederation().GetMembers() {
		if dc.GetName() != w.p.Datacenter {
			members[dc.GetName()] = dc.GetGatewayAddresses()
		}
	}
	w.update(func(k Known) (Known, bool) { return k.withRegistry(members) })
	return nil
}

func (w *Watcher) update(change func(Known) (Known, bool)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next, changed := change(w.known)
	if !changed {
		return
	}
	w.known = next
	// Routing with what is known matters more than keeping it.
	if err := save(w.p.Path, next); err != nil {
		w.p.Log.Warn("topology not kept; a restart may not know it", obs.KeyError, err)
	}
	w.p.Changed(next.Remotes())
}

func load(path string) (Known, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Known{}, fmt.Errorf("read topology: %w", err)
	}
	var known Known
	if err := json.Unmarshal(text, &known); err != nil {
		return Known{}, fmt.Errorf("parse %q: %w", path, err)
	}
	return known, nil
}

func save(path string, known Known) error {
	text, err := json.MarshalIndent(known, "", "  ")
	if err != nil {
		return fmt.Errorf("encode topology: %w", err)
	}
	return identity.WriteFile(path, append(text, '\n'))
}
