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
	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/obs"
	"konsul.dev/services/wan-gossip/internal/members"
)

// movingInterval is how often a member whose address has changed says so to those who know its old
// one.
const movingInterval = time.Second

// remindEvery is how often the log repeats that a seed cannot be joined.
const remindEvery = 10 * time.Minute

// Params is what a joiner is made of.
type Params struct {
	// Seeds are host:port as configured.
	Seeds []string
	// Peers are addresses of an earlier life; they are tried until the first join succeeds.
	Peers []string
	// Lookup returns the IP addresses of a host name.
	Lookup func(ctx context.Context, host string) ([]string, error)
	// Join exchanges members with ip:port.
	Join func(address string) error
	// Connected returns the addresses of the members that are up, the own one included.
	Connected func() []string
	// RetryMin and RetryMax bound the waits between rounds.
	RetryMin, RetryMax time.Duration
	Clock              clock.Clock
	Log                *slog.Logger
}

// Joiner joins. Run is called once; Refusal may be called at any time.
type Joiner struct {
	p      Params
	joined bool
	said   map[string]told // what was logged last about a seed
	moved  map[string]bool // where this member was known at another address in the last round

	mu      sync.Mutex
	refusal *members.Refusal
}

// New returns a joiner that has not tried anything yet.
func New(p Params) *Joiner {
	return &Joiner{p: p, said: map[string]told{}, moved: map[string]bool{}}
}

// Refusal returns why the last round was turned away; nil when it was not.
func (j *Joiner) Refusal() *members.Refusal {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.refusal
}

// Run joins what is not connected, again and again, until ctx ends.
func (j *Joiner) Run(ctx context.Context) error {
	pause := backoff.New(j.p.RetryMin, j.p.RetryMax)
	idle := backoff.New(j.p.RetryMax, j.p.RetryMax)
	moving := backoff.New(movingInterval, movingInterval)
	for {
		next := pause
		switch complete := j.round(ctx); {
		case complete:
			pause.Reset()
			next = idle
		case len(j.moved) > 0:
			next = moving
		}
		if next.Wait(ctx) != nil {
			return nil
		}
	}
}

// round tries every seed that is not connected, and says whether none is missing now.
func (j *Joiner) round(ctx context.Context) bool {
	seeds := j.p.Seeds
	if !j.joined || len(j.moved) > 0 {
		seeds = slices.Concat(seeds, j.p.Peers)
	}
	moved := map[string]bool{}
	// Members that are met in this round are tried in it, too: a member that has moved must tell
	// each.
	connected := j.p.Connected()
	complete := true
	var refused *members.Refusal
	for _, seed := range seeds {
		if ctx.Err() != nil {
			return false
		}
		err := j.try(ctx, seed, connected, moved)
		j.say(seed, err)
		var refusal *members.Refusal
		if errors.As(err, &refusal) {
			refused = refusal
		}
		complete = complete && err == nil
	}
	j.moved = moved
	j.mu.Lock()
	j.refusal = refused
	j.mu.Unlock()
	return complete
}

// try returns nil when one of the seed's addresses is connected, or has just been joined. It notes
// in moved where this member is known at another address.
func (j *Joiner) try(ctx context.Context, seed string, connected []string, moved map[string]bool) error {
	addresses, err := j.resolve(ctx, seed)
	if err != nil {
		return err
	}
	for _, address := range addresses {
		if slices.Contains(connected, address) && !j.moved[address] {
			return nil
		}
	}
	var errs []error
	for _, address := range addresses {
		err := j.p.Join(address)
		if errors.Is(err, members.ErrOldAddress) {
			moved[address] = true
		}
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

// told is what was logged about a seed, and when.
type told struct {
	outcome string
	at      time.Time
}

// say logs a seed's outcome when it is of another kind than last time, and a lasting trouble now
// and then. The text does not tell: a failed lookup names another port each time.
func (j *Joiner) say(seed string, err error) {
	now, outcome := j.p.Clock.Now(), outcomeOf(err)
	last, known := j.said[seed]
	if known && last.outcome == outcome && (err == nil || now.Sub(last.at) < remindEvery) {
		return
	}
	j.said[seed] = told{outcome, now}
	switch {
	case err == nil:
		j.p.Log.Info("gossip seed joined", obs.KeyAddress, seed)
	default:
		j.p.Log.Warn("gossip seed cannot be joined; trying on", obs.KeyAddress, seed, obs.KeyError, err)
	}
}

func outcomeOf(err error) string {
	var refusal *members.Refusal
	var lookup *net.DNSError
	switch {
	case err == nil:
		return "joined"
	case errors.As(err, &refusal):
		return "refused"
	case errors.Is(err, members.ErrOldAddress):
		return "moved"
	case errors.As(err, &lookup):
		return "no such name"
	default:
		return "unreachable"
	}
}
