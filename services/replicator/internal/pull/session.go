package pull

import (
	"context"
	"fmt"
	"time"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/obs"
	"konsul.dev/services/replicator/internal/cursor"
)

// A server of the local registry that lags behind its leader catches up within these.
const (
	staleTries    = 6
	staleRetryMin = 20 * time.Millisecond
	staleRetryMax = 200 * time.Millisecond
)

// pull runs one session after the other until ctx ends.
func (p *Puller) pull(ctx context.Context, t target) {
	retry := backoff.New(p.params.RetryMin, p.params.RetryMax)
	for {
		s := session{Puller: p, target: t}
		err := s.run(ctx)
		if ctx.Err() != nil {
			return
		}
		p.params.Metrics.failed(t.source, err)
		if p.failed(t.source, err) {
			p.params.Log.WarnContext(ctx, "replication interrupted; copies are kept",
				obs.KeySourceDC, t.source, obs.KeyReason, reason(err), obs.KeyError, err)
		}
		if s.progress && fault.CodeOf(err) != fault.Aborted {
			retry.Reset()
		}
		if retry.Wait(ctx) != nil {
			return
		}
	}
}

// session is one stream and what was applied from it.
type session struct {
	*Puller
	target target
	// stored is the position in the local registry since storedAt; at is what is known beyond it.
	stored, at cursor.Position
	storedAt   time.Time
	// progress is set once the source has sent a complete message.
	progress bool
	// warned is set once a full sync was announced.
	warned bool
}

// run copies until something ends it; it always answers why.
func (s *session) run(ctx context.Context) error {
	stored, err := s.params.Sink.Cursor(ctx, s.target.source, s.target.epoch)
	if err != nil {
		return err
	}
	s.stored, s.at, s.storedAt = stored, stored, s.params.Clock.Now()
	s.resumed(stored)
	stream, err := s.params.Open(ctx, s.at, s.target.lineages)
	if err != nil {
		return fmt.Errorf("open stream from %s: %w", s.target.source, err)
	}
	defer stream.Close()
	for {
		message, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("receive from %s: %w", s.target.source, err)
		}
		if err := s.take(ctx, message, s.params.Clock.Now()); err != nil {
			return err
		}
	}
}

// take judges a message, applies it, and tells what is known now.
func (s *session) take(ctx context.Context, message *federationv1.ReplicationResponse, arrived time.Time) error {
	next, err := s.at.Accept(message, arrived)
	if err != nil {
		return err
	}
	if message.GetFullSyncRequired() && !s.warned {
		s.warned = true
		s.fullSync(ctx)
	}
	if len(message.GetEntries()) > 0 || next.MustStore(s.stored, arrived.Sub(s.storedAt), s.params.StoreEvery) {
		err := s.apply(ctx, message.GetEntries(), next)
		switch {
		case err == nil:
			s.stored = next
		case len(message.GetEntries()) > 0 || fault.CodeOf(err) != fault.Aborted:
			return err
		}
		// With nothing to copy a lost race means that another replicator has stored as much.
		s.storedAt = s.params.Clock.Now()
	}
	s.at = next
	s.progress = s.progress || message.GetComplete()
	sourceIndex := max(next.Index, uint64(message.GetCurrentIndex())) //nolint:gosec // Accept refuses negative ones
	if s.heard(next, sourceIndex, message.GetComplete(), arrived) {
		s.params.Log.InfoContext(ctx, "replicating", obs.KeySourceDC, s.target.source, obs.KeyIndex, next.Index, "epoch", next.Epoch)
	}
	return nil
}

// apply commits entries. A lost race ends the session, unless the stored cursor is no further than
// ours: then the answer came from a server that had not caught up with our own last commit, and is
// asked again.
func (s *session) apply(ctx context.Context, entries []*federationv1.ReplicatedEntry, next cursor.Position) error {
	retry := backoff.New(staleRetryMin, staleRetryMax)
	for try := 1; ; try++ {
		err := s.params.Sink.Apply(ctx, entries, s.stored, next, s.params.Metrics.applied)
		if err == nil || fault.CodeOf(err) != fault.Aborted || try == staleTries {
			return err
		}
		stored, readErr := s.params.Sink.Cursor(ctx, s.target.source, s.target.epoch)
		if readErr != nil || stored.Index > s.stored.Index || retry.Wait(ctx) != nil {
			return err
		}
	}
}

// fullSync says that the source sends all it has. What it sends is put over the copies; nothing is
// deleted on the ground that the source did not send it.
func (s *session) fullSync(ctx context.Context) {
	if s.at.Index == 0 {
		s.params.Log.InfoContext(ctx, "copying everything", obs.KeySourceDC, s.target.source)
		return
	}
	s.params.Log.WarnContext(ctx, "the source cannot tell what was deleted since the cursor; copies of what it deleted stay",
		obs.KeySourceDC, s.target.source, obs.KeyIndex, s.at.Index)
}
