package skew

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/obs"
)

const (
	every      = 10 * time.Second
	askTimeout = 2 * time.Second
	// tolerated is what synchronised clocks stay within by far.
	tolerated = time.Second
)

// Peer is whose clock is compared: a server of the own datacenter, or another datacenter as a
// whole.
type Peer struct {
	Datacenter string
	// Server is empty for another datacenter: whichever server answered.
	Server string
}

func (p Peer) String() string {
	if p.Server != "" {
		return "server " + p.Server
	}
	return "datacenter " + p.Datacenter
}

// Difference is how far a peer's clock is ahead; negative: behind.
type Difference struct {
	Peer Peer
	By   time.Duration
	// Within is how wrong By may be.
	Within time.Duration
}

// Notable reports whether the clocks differ by more than clocks should, whatever the network did.
func (d Difference) Notable() bool { return d.By.Abs() > tolerated+d.Within }

// Describe says it to people.
func (d Difference) Describe() string {
	direction := "ahead of"
	if d.By < 0 {
		direction = "behind"
	}
	return fmt.Sprintf("the clock of %s is %s %s this server's", d.Peer, d.By.Abs().Round(100*time.Millisecond), direction)
}

// Between returns the difference of a peer that said its time between two readings of the own
// clock.
func Between(peer Peer, asked time.Time, said time.Time, answered time.Time) Difference {
	half := answered.Sub(asked) / 2
	return Difference{Peer: peer, By: said.Sub(asked.Add(half)), Within: half}
}

// Params is what a meter is made of.
type Params struct {
	// Peers returns whom to ask now.
	Peers func() []Peer
	// Ask returns a peer's time; zero: it does not say.
	Ask        func(ctx context.Context, peer Peer) (time.Time, error)
	Clock      clock.Clock
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Meter keeps the latest difference of every peer.
type Meter struct {
	p     Params
	gauge *prometheus.GaugeVec

	mu    sync.Mutex
	known map[Peer]Difference
}

// New returns a meter that has measured nothing.
func New(p Params) *Meter {
	m := &Meter{p: p, known: map[Peer]Difference{}, gauge: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "konsul_clock_difference_seconds", Help: "How far a peer's clock is ahead of this server's; negative: behind. The server is empty for another datacenter.",
	}, []string{"datacenter", "server"})}
	p.Registerer.MustRegister(m.gauge)
	return m
}

// Run measures now and then until ctx ends.
func (m *Meter) Run(ctx context.Context) error {
	for {
		m.Measure(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-m.p.Clock.After(every):
		}
	}
}

// Measure asks every peer once. What is known of a peer that is gone, or does not answer, is
// forgotten.
func (m *Meter) Measure(ctx context.Context) {
	peers := m.p.Peers()
	found := make([]Difference, len(peers))
	var wg sync.WaitGroup
	for i, peer := range peers {
		wg.Go(func() { found[i] = m.ask(ctx, peer) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.known
	m.known = map[Peer]Difference{}
	m.gauge.Reset()
	for _, d := range found {
		if d.Peer == (Peer{}) {
			continue
		}
		m.known[d.Peer] = d
		m.gauge.WithLabelValues(d.Peer.Datacenter, d.Peer.Server).Set(d.By.Seconds())
		switch {
		case d.Notable() && !before[d.Peer].Notable():
			m.p.Log.Warn("clocks differ; synchronise them (NTP)", obs.KeyTargetDC, d.Peer.Datacenter, obs.KeyPeer, d.Peer.Server, "difference", d.By)
		case !d.Notable() && before[d.Peer].Notable():
			m.p.Log.Info("clocks agree again", obs.KeyTargetDC, d.Peer.Datacenter, obs.KeyPeer, d.Peer.Server)
		}
	}
}

// ask returns nothing of a peer that does not say its time.
func (m *Meter) ask(ctx context.Context, peer Peer) Difference {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	asked := m.p.Clock.Now()
	said, err := m.p.Ask(ctx, peer)
	if err != nil || said.IsZero() {
		return Difference{}
	}
	return Between(peer, asked, said, m.p.Clock.Now())
}

// Of returns the latest difference of a peer; false when there is none.
func (m *Meter) Of(peer Peer) (Difference, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.known[peer]
	return d, ok
}

// Notable returns the differences that are more than they should be, the largest first.
func (m *Meter) Notable() []Difference {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Difference
	for _, d := range m.known {
		if d.Notable() {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b Difference) int {
		return cmp.Or(cmp.Compare(b.By.Abs(), a.By.Abs()), cmp.Compare(a.Peer.Datacenter, b.Peer.Datacenter), cmp.Compare(a.Peer.Server, b.Peer.Server))
	})
	return out
}
