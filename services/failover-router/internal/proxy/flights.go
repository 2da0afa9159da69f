package proxy

import (
	"context"
	"errors"
	"sync"
	"time"
)

// errGivenUp ends what waits for a datacenter that is lost.
var errGivenUp = errors.New("its datacenter was given up while it answered")

// verdictEvery is how often datacenters that gossip has lost are asked for the sake of those who
// wait for them.
const verdictEvery = time.Second

// flights are the requests that wait for instances of other datacenters.
type flights struct {
	mu   sync.Mutex
	byDC map[string]map[*flight]struct{}
}

type flight struct {
	service string
	cancel  context.CancelCauseFunc
}

func newFlights() *flights { return &flights{byDC: map[string]map[*flight]struct{}{}} }

// begin returns a context that ends when the datacenter is given up. end must be called when
// nothing is waited for any more.
func (f *flights) begin(ctx context.Context, datacenter, service string) (out context.Context, end func()) {
	out, cancel := context.WithCancelCause(ctx)
	mine := &flight{service, cancel}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byDC[datacenter] == nil {
		f.byDC[datacenter] = map[*flight]struct{}{}
	}
	f.byDC[datacenter][mine] = struct{}{}
	return out, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.byDC[datacenter], mine)
		if len(f.byDC[datacenter]) == 0 {
			delete(f.byDC, datacenter)
		}
		cancel(nil)
	}
}

// waiting returns a service that a request to a datacenter waits for; false: none does.
func (f *flights) waiting(datacenter string) (string, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for one := range f.byDC[datacenter] {
		return one.service, true
	}
	return "", false
}

// giveUp ends the requests to a datacenter.
func (f *flights) giveUp(datacenter string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for one := range f.byDC[datacenter] {
		one.cancel(errGivenUp)
	}
}

// Run ends what waits for a datacenter once it is lost by two signals: gossip's, and a question
// that it does not answer.
func (p *Proxy) Run(ctx context.Context) error {
	ticker := time.NewTicker(verdictEvery)
	defer ticker.Stop()
	for {
		datacenters, changed := p.p.Topology.Current()
		for _, dc := range datacenters {
			if !dc.Down {
				continue
			}
			if service, waited := p.flights.waiting(dc.Name); waited && !p.p.Resolver.Answers(ctx, dc.Name, service) && ctx.Err() == nil {
				p.flights.giveUp(dc.Name)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-ticker.C:
		}
	}
}
