// Package joiner keeps trying to reach the addresses a member was told to join.
//
// Nothing here is fatal: a datacenter stands alone for as long as it must. Names are looked up for
// each try, so an address may appear, move or come back at any time.
package joiner

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/obs"
	"konsul.dev/services/wan-gossip/internal/members"
)

// Params is what a joiner is made of.
type Params struct {
	// Seeds are host:port as configured.
	Seeds []string
	// Peers are addresses of an earlier life; they are tried until the first join succeeds.
	Peers []string
	// Lookup answers the IP addresses of a host name.
	Lookup func(ctx context.Context, host string) ([]string, error)
	// Join exchanges members with ip:port.
	Join func(address string) error
	// Connected answers the addresses of the members that are up, the own one included.
	Connected func() []string
	// RetryMin and RetryMax bound the waits between rounds.
	RetryMin, RetryMax time.Duration
	Log                *slog.Logger
}

// Joiner joins. Run is called once; Refusal may be called at any time.
type Joiner struct {
	p      Params
	joined bool
	said   map[string]string // what was logged last about a seed

	mu      sync.Mutex
	refusal *members.Refusal
}

// New answers a joiner that has not tried anything yet.
func New(p Params) *Joiner { return &Joiner{p: p, said: map[string]string{}} }

// Refusal answers why the last round was turned away; nil when it was not.
func (j *Joiner) Refusal() *members.Refusal {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.refusal
}

// Run joins what is not connected, again and again, until ctx ends.
func (j *Joiner) Run(ctx context.Context) error {
	pause := backoff.New(j.p.RetryMin, j.p.RetryMax)
	idle := backoff.New(j.p.RetryMax, j.p.RetryMax)
	for {
		next := pause
		if complete := j.round(ctx); complete {
			pause.Reset()
			next = idle
		}
		if next.Wait(ctx) != nil {
			return nil
		}
	}
}

// round tries every seed that is not connected, and says whether none is missing now.
func (j *Joiner) round(ctx context.Context) bool {
	seeds := j.p.Seeds
	if !j.joined {
		seeds = slices.Concat(seeds, j.p.Peers)
	}
	complete := true
	var refused *members.Refusal
	for _, seed := range seeds {
		if ctx.Err() != nil {
			return false
		}
		err := j.try(ctx, seed)
		j.say(seed, err)
		var refusal *members.Refusal
		if errors.As(err, &refusal) {
			refused = refusal
		}
		complete = complete && err == nil
	}
	j.mu.Lock()
	j.refusal = refused
	j.mu.Unlock()
	return complete
}

// try answers nil when one of the seed's addresses is connected, or has just been joined.
func (j *Joiner) try(ctx context.Context, seed string) error {
	addresses, err := j.resolve(ctx, seed)
	if err != nil {
		return err
	}
	connected := j.p.Connected()
	for _, address := range addresses {
		if slices.Contains(connected, address) {
			return nil
		}
	}
	var errs []error
	for _, address := range addresses {
		err := j.p.Join(address)
		if err == nil {
			j.joined = true
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (j *Joiner) resolve(ctx context.Context, seed string) ([]string, error) {
	host, port, err := net.SplitHostPort(seed)
	if err != nil {
		return nil, err
	}
	ips, err := j.p.Lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	addresses := make([]string, len(ips))
	for i, ip := range ips {
		addresses[i] = net.JoinHostPort(ip, port)
	}
	return addresses, nil
}

// say logs a seed's outcome when it is another than last time.
func (j *Joiner) say(seed string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	last, told := j.said[seed]
	if told && last == text {
		return
	}
	j.said[seed] = text
	switch {
	case err == nil:
		j.p.Log.Info("gossip seed joined", obs.KeyAddress, seed)
	default:
		j.p.Log.Warn("gossip seed cannot be joined; trying on", obs.KeyAddress, seed, obs.KeyError, text)
	}
}
