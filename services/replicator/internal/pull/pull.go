package pull

import (
	"context"
	"log/slog"
	"sync"
	"time"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/obs"
	"konsul.dev/services/replicator/internal/cursor"
)

// ReasonNotAsked means that the local registry has not been asked for the federation record yet.
const ReasonNotAsked = "NOT_ASKED"

// Sink is the local registry.
type Sink interface {
	// Federation reads the federation record.
	Federation(ctx context.Context) (*federationv1.Federation, error)
	// Cursor reads the stored position in source; it knows at least epoch.
	Cursor(ctx context.Context, source string, epoch uint64) (cursor.Position, error)
	// Apply commits entries and moves the cursor; Aborted when the stored cursor is another.
	Apply(ctx context.Context, entries []*federationv1.ReplicatedEntry, stored, next cursor.Position, applied func([]*federationv1.ReplicatedEntry)) error
}

// Stream is one run of messages from a source.
type Stream interface {
	// Recv waits for the next message; it gives up by itself when the source is silent.
	Recv() (*federationv1.ReplicationResponse, error)
	Close()
}

// Open opens a stream of what changed after a position, from and to the registries of these
// histories.
type Open func(ctx context.Context, from cursor.Position, lineages cursor.Lineages) (Stream, error)

// Params is what a puller is made of.
type Params struct {
	Datacenter   string
	FederationID string
	// Expected is the primary according to the configuration: what status tells of until the
	// registry is heard.
	Expected string
	Sink     Sink
	Open     Open
	Clock    clock.Clock
	Log      *slog.Logger
	Metrics  *Metrics
	// Poll is how often the federation record is read.
	Poll time.Duration
	// StoreEvery is how often the cursor is stored while no entries come.
	StoreEvery time.Duration
	// RetryMin and RetryMax bound the waits between sessions.
	RetryMin, RetryMax time.Duration
}

// Puller copies from whoever is primary. Make one with New; Status and Ready are safe for
// concurrent use.
type Puller struct {
	params Params

	mu     sync.Mutex
	state  *state // nil: nothing to copy
	record error  // why the federation record is not known; nil once it is
}

// New returns a puller that counts its lag from now.
func New(p Params) *Puller {
	puller := &Puller{params: p, record: fault.New(fault.Unavailable, ReasonNotAsked, "the local registry has not been asked yet")}
	if p.Expected != p.Datacenter {
		puller.follow(p.Expected)
	}
	return puller
}

// Ready returns why the puller does not know its part yet. A primary that cannot be reached is no
// reason: the datacenter stands alone.
func (p *Puller) Ready(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.record
}

// target is whom to copy, and in which epoch. The zero target is nobody.
type target struct {
	source   string
	epoch    uint64
	lineages cursor.Lineages
}

// Run follows the federation record until ctx ends.
func (p *Puller) Run(ctx context.Context) error {
	var current target
	stop := func() {}
	defer func() { stop() }()
	retry := backoff.New(p.params.RetryMin, p.params.Poll)
	for {
		next, known := p.target(ctx)
		if known && next != current {
			stop()
			current, stop = next, p.start(ctx, next)
		}
		wait := p.params.Poll
		if known {
			retry.Reset()
		} else {
			wait = min(wait, retry.Next())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.params.Clock.After(wait):
		}
	}
}

// target reads whom to copy. It is not known while the local registry does not answer: then
// whatever runs goes on.
func (p *Puller) target(ctx context.Context) (next target, known bool) {
	record, err := p.params.Sink.Federation(ctx)
	if err == nil && record.GetId() != p.params.FederationID {
		err = fault.New(fault.FailedPrecondition, cursor.ReasonOtherFederation,
			"the local registry belongs to federation %s, this replicator to %s", record.GetId(), p.params.FederationID)
	}
	p.mu.Lock()
	news := err != nil && (p.record == nil || p.record.Error() != err.Error())
	if err == nil || p.record != nil {
		p.record = err
	}
	waiting := p.state != nil && !p.state.connected
	p.mu.Unlock()
	if err != nil {
		if news && ctx.Err() == nil {
			p.params.Log.WarnContext(ctx, "federation record unknown", obs.KeyError, err)
		}
		if waiting {
			p.update(p.source(), func(s *state) { s.err = err.Error() })
		}
		return target{}, false
	}
	if record.GetPrimaryDatacenter() == p.params.Datacenter {
		return target{epoch: record.GetEpoch()}, true
	}
	next = target{source: record.GetPrimaryDatacenter(), epoch: record.GetEpoch(), lineages: cursor.Lineages{Target: record.GetLineageId()}}
	for _, member := range record.GetMembers() {
		if member.GetName() == next.source {
			next.lineages.Source = member.GetLineageId()
		}
	}
	return next, true
}

func (p *Puller) source() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == nil {
		return ""
	}
	return p.state.source
}

// start copies from a target until the answered function is called, which waits for the end.
func (p *Puller) start(ctx context.Context, t target) (stop func()) {
	p.follow(t.source)
	if t.source == "" {
		p.params.Log.InfoContext(ctx, "this datacenter is the primary; nothing to copy")
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var loop sync.WaitGroup
	loop.Go(func() { p.pull(ctx, t) })
	return func() {
		cancel()
		loop.Wait()
	}
}
