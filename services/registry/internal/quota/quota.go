// Package quota bounds what the holder of one token may have a server do at a time: streams it
// keeps open, reads that wait, leases it has, and how fast it asks.
//
// A holder is a token's accessor id; without one there is no bound, for that is a service of the
// federation acting as itself. Each server counts for itself, but for leases, which are counted as
// they are committed. What is counted is what is held, so the tables are no larger than that; rates
// of holders that have been quiet are forgotten. All methods are safe for concurrent use.
package quota

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
)

// Reasons of refused calls.
const (
	// ReasonWatches says that a token has as many watches open at a server as one may have.
	ReasonWatches = "TOO_MANY_WATCHES"
	// ReasonBlockedReads says that as many reads and lock requests of a token wait at a server as
	// one may have waiting.
	ReasonBlockedReads = "TOO_MANY_BLOCKED_READS"
	// ReasonLeases says that a token has as many leases as one may have.
	ReasonLeases = "TOO_MANY_LEASES"
	// ReasonLeaseRate says that a token takes leases faster than one may.
	ReasonLeaseRate = "TOO_MANY_GRANTS"
	// ReasonRate says that a token asks faster than one may.
	ReasonRate = "TOO_MANY_REQUESTS"
)

// Kind is what is bounded. It is fit for a metric's label.
type Kind string

// The kinds.
const (
	Watch       Kind = "watch"
	BlockedRead Kind = "blocked_read"
	Lease       Kind = "lease"
	LeaseRate   Kind = "lease_rate"
	Request     Kind = "request"
)

// Limits are for each token; 0: no limit.
type Limits struct {
	Watches, BlockedReads, Leases int
	// LeasesPerSecond and RequestsPerSecond may be exceeded for as long as two seconds' worth
	// lasts.
	LeasesPerSecond, RequestsPerSecond int
}

const (
	// patience is when whoever holds too much should try again.
	patience = time.Second
	// mostRates bounds the holders whose rates are remembered.
	mostRates = 10_000
)

// Quotas keeps count.
type Quotas struct {
	limits  Limits
	clock   clock.Clock
	leases  func(holder string) int
	refused *prometheus.CounterVec

	mu    sync.Mutex
	held  map[hold]int
	rates map[hold]*rate.Limiter
}

// hold is something that a holder has.
type hold struct {
	kind   Kind
	holder string
}

// New returns quotas that count nothing yet, and registers their metric. leases returns how many
// leases a holder has.
func New(limits Limits, c clock.Clock, leases func(holder string) int, registerer prometheus.Registerer) *Quotas {
	q := &Quotas{
		limits: limits, clock: c, leases: leases, held: map[hold]int{}, rates: map[hold]*rate.Limiter{},
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "konsul_registry_limited_total", Help: "Calls that were refused because their token has or asks too much, by what was limited.",
		}, []string{"kind"}),
	}
	for _, kind := range []Kind{Watch, BlockedRead, Lease, LeaseRate, Request} {
		q.refused.WithLabelValues(string(kind))
	}
	registerer.MustRegister(q.refused)
	return q
}

// Watch counts a watch until release is called.
func (q *Quotas) Watch(holder string) (release func(), err error) {
	return q.hold(hold{Watch, holder}, q.limits.Watches, func(most int) *fault.Error {
		return fault.New(fault.ResourceExhausted, ReasonWatches, "the token has %d watches open at this server, as many as one may have", most).
			WithRemedy("end some, watch prefixes instead of keys, or raise registry.limits.watches_per_token")
	})
}

// BlockedRead counts a call that waits, until release is called.
func (q *Quotas) BlockedRead(holder string) (release func(), err error) {
	return q.hold(hold{BlockedRead, holder}, q.limits.BlockedReads, func(most int) *fault.Error {
		return fault.New(fault.ResourceExhausted, ReasonBlockedReads, "%d calls of the token wait at this server, as many as may", most).
			WithRemedy("watch instead of reading with an index, or raise registry.limits.blocked_reads_per_token")
	})
}

func (q *Quotas) hold(h hold, most int, refusal func(most int) *fault.Error) (release func(), err error) {
	if h.holder == "" || most == 0 {
		return func() {}, nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held[h] >= most {
		return nil, q.refuse(h.kind, refusal(most), patience)
	}
	q.held[h]++
	return func() { q.release(h) }, nil
}

func (q *Quotas) release(h hold) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held[h]--; q.held[h] == 0 {
		delete(q.held, h)
	}
}

// Lease refuses a lease to a holder that has enough of them, or takes them too fast.
func (q *Quotas) Lease(holder string) error {
	if most := q.limits.Leases; holder != "" && most > 0 && q.leases(holder) >= most {
		return q.refuse(Lease, fault.New(fault.ResourceExhausted, ReasonLeases, "the token has %d leases, as many as one may have", most).
			WithRemedy("revoke some or let them end, attach more keys to each, or raise registry.limits.leases_per_token"), patience)
	}
	if wait := q.wait(hold{LeaseRate, holder}, q.limits.LeasesPerSecond); wait > 0 {
		return q.refuse(LeaseRate, fault.New(fault.ResourceExhausted, ReasonLeaseRate, "the token takes more than %d leases a second", q.limits.LeasesPerSecond).
			WithRemedy("ask more slowly, or raise registry.limits.leases_per_second"), wait)
	}
	return nil
}

// Request refuses a call of a holder that makes them too fast.
func (q *Quotas) Request(holder string) error {
	if wait := q.wait(hold{Request, holder}, q.limits.RequestsPerSecond); wait > 0 {
		return q.refuse(Request, fault.New(fault.ResourceExhausted, ReasonRate, "the token makes more than %d calls a second", q.limits.RequestsPerSecond).
			WithRemedy("ask more slowly, or raise registry.limits.requests_per_second"), wait)
	}
	return nil
}

// wait takes one of a holder's calls from its rate, and returns 0, or how long there is none.
func (q *Quotas) wait(h hold, perSecond int) time.Duration {
	if h.holder == "" || perSecond == 0 {
		return 0
	}
	now := q.clock.Now()
	reservation := q.limiter(h, perSecond, now).ReserveN(now, 1)
	wait := reservation.DelayFrom(now)
	if wait > 0 {
		reservation.CancelAt(now)
	}
	return wait
}

func (q *Quotas) limiter(h hold, perSecond int, now time.Time) *rate.Limiter {
	q.mu.Lock()
	defer q.mu.Unlock()
	if l, known := q.rates[h]; known {
		return l
	}
	if len(q.rates) >= mostRates {
		q.forget(now)
	}
	l := rate.NewLimiter(rate.Limit(perSecond), 2*perSecond)
	q.rates[h] = l
	return l
}

// forget makes room: what has been quiet long enough to have its whole burst again is as good as
// new. It runs under mu.
func (q *Quotas) forget(now time.Time) {
	for h, l := range q.rates {
		if l.TokensAt(now) >= float64(l.Burst()) {
			delete(q.rates, h)
		}
	}
	for h := range q.rates {
		if len(q.rates) < mostRates {
			return
		}
		delete(q.rates, h) // More are asking at once than are told apart: one of them begins anew.
	}
}

func (q *Quotas) refuse(kind Kind, refusal *fault.Error, wait time.Duration) error {
	q.refused.WithLabelValues(string(kind)).Inc()
	return refusal.WithRetryAfter(wait)
}
