package wangossip

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/obs"
	"konsul.dev/services/wan-gossip/internal/members"
)

const (
	// quietFor is how long the same refusal is counted but not logged again: a refused member
	// knocks on.
	quietFor = time.Minute
	// maxSaid bounds what is remembered about strangers.
	maxSaid = 1024
)

// gate decides who may be in the pool, counts those who may not, and says why.
type gate struct {
	self    members.Self
	refused *prometheus.CounterVec
	log     *slog.Logger
	clock   clock.Clock

	mu   sync.Mutex
	said map[string]time.Time
}

func newGate(self members.Self, telemetry *obs.Telemetry, clk clock.Clock) (*gate, error) {
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "konsul_wan_gossip_merges_refused_total",
		Help: "Gossip members that were refused, or that refused this one, by reason.",
	}, []string{"reason"})
	if err := telemetry.Metrics.Register(refused); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	for _, reason := range []string{members.ReasonStranger, members.ReasonFederation, members.ReasonDuplicate, members.ReasonEncryption} {
		refused.WithLabelValues(reason)
	}
	return &gate{self: self, refused: refused, log: telemetry.Log, clock: clk, said: map[string]time.Time{}}, nil
}

// admit is asked for every member that wants in.
func (g *gate) admit(candidate members.Member, known []members.Member) *members.Refusal {
	refusal := g.self.Admit(candidate, known)
	if refusal != nil {
		g.report(refusal)
	}
	return refusal
}

// counted reports a refusal that only the other side could see, and answers err.
func (g *gate) counted(err error) error {
	var refusal *members.Refusal
	if errors.As(err, &refusal) && refusal.Reason == members.ReasonEncryption {
		g.report(refusal)
	}
	return err
}

func (g *gate) report(refusal *members.Refusal) {
	g.refused.WithLabelValues(refusal.Reason).Inc()
	now := g.clock.Now()
	g.mu.Lock()
	last, told := g.said[refusal.Text]
	again := !told || now.Sub(last) >= quietFor
	if again {
		if len(g.said) >= maxSaid {
			clear(g.said)
		}
		g.said[refusal.Text] = now
	}
	g.mu.Unlock()
	if again {
		g.log.Error("gossip merge refused", obs.KeyReason, refusal.Reason, obs.KeyError, refusal.Text, "remedy", refusal.Remedy)
	}
}
