// Package roundtrip measures how far away other datacenters are, by asking their members.
//
// Serf's network coordinates would give an estimate without asking, but they need minutes to settle
// and are poor in small pools; a ping a second to a handful of members costs nothing.
package roundtrip

import (
	"context"
	"sync"
	"time"

	"konsul.dev/services/wan-gossip/internal/members"
)

// weight of a new sample, as TCP's smoothed round trip has it (RFC 6298).
const weight = 0.125

// Estimator smooths round trips. It is not safe for concurrent use.
type Estimator struct {
	smoothed map[string]time.Duration // by member
}

// NewEstimator returns an estimator that knows nothing.
func NewEstimator() *Estimator { return &Estimator{smoothed: map[string]time.Duration{}} }

// Observe takes a sample for a member.
func (e *Estimator) Observe(member string, sample time.Duration) {
	sample = max(sample, time.Microsecond) // zero is the own datacenter's
	old, known := e.smoothed[member]
	if !known {
		e.smoothed[member] = sample
		return
	}
	e.smoothed[member] = old + time.Duration(weight*float64(sample-old))
}

// Nearest returns, for each datacenter, the round trip to its nearest measured member, and forgets
// members that are not in all.
func (e *Estimator) Nearest(all []members.Member) map[string]time.Duration {
	kept := make(map[string]time.Duration, len(all))
	nearest := map[string]time.Duration{}
	for _, m := range all {
		d, known := e.smoothed[m.Name]
		if !known {
			continue
		}
		kept[m.Name] = d
		if best, ok := nearest[m.Datacenter]; !ok || d < best {
			nearest[m.Datacenter] = d
		}
	}
	e.smoothed = kept
	return nearest
}

// Pinger asks one member.
type Pinger interface {
	// Ping returns how long the member took.
	Ping(m members.Member) (time.Duration, error)
}

// Prober measures in a loop.
type Prober struct {
	Own      string
	Interval time.Duration
	Pinger   Pinger
	Members  func() []members.Member
	// Publish receives the result of each round.
	Publish func(map[string]time.Duration)
}

// concurrency bounds the pings in flight.
const concurrency = 16

// Run measures until ctx ends. A member that does not answer keeps its last value until it is
// declared dead; then its datacenter's nearest is another one, or unknown.
func (p Prober) Run(ctx context.Context) error {
	estimator := NewEstimator()
	ticker := time.NewTicker(p.Interval)
	defer ticker.Stop()
	for {
		p.round(estimator)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (p Prober) round(estimator *Estimator) {
	var remote []members.Member
	for _, m := range p.Members() {
		if m.Status == members.Alive && m.Datacenter != p.Own {
			remote = append(remote, m)
		}
	}
	samples := make([]time.Duration, len(remote))
	slots := make(chan struct{}, concurrency)
	var wg sync.WaitGroup
	for i, m := range remote {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if d, err := p.Pinger.Ping(m); err == nil {
				samples[i] = max(d, 1) // zero means no answer
			}
		})
	}
	wg.Wait()
	for i, m := range remote {
		if samples[i] > 0 {
			estimator.Observe(m.Name, samples[i])
		}
	}
	p.Publish(estimator.Nearest(remote))
}
