package leading

import (
	"context"
	"errors"
	"slices"
	"time"

	"konsul.dev/pkg/obs"
	"konsul.dev/services/registry/internal/catalog"
	"konsul.dev/services/registry/internal/fsm"
)

const (
	// expireTogether bounds how many passed deadlines are proposed at once, so that a mass death
	// leaves room for the writes of those who live.
	expireTogether = 256
	// expireOperations bounds what those proposals do together, but for the last: nodes that die
	// with very many instances.
	expireOperations = 5000
)

// keepDeadlines lets the catalogue's deadlines pass as long as this server leads.
func (d *Duties) keepDeadlines(ctx context.Context, n Node) {
	d.Catalog.Grace()
	// Run ends with ctx and with nothing else.
	_ = d.Deadlines.Run(ctx, func(ctx context.Context, keys []string) error {
		var errs []error
		for keys := range slices.Chunk(keys, expireTogether) {
			errs = append(errs, d.expire(ctx, n, keys))
		}
		err := errors.Join(errs...)
		if err != nil && ctx.Err() == nil {
			d.Log.WarnContext(ctx, "passed deadlines could not be recorded; trying again", "deadlines", len(keys), obs.KeyError, err)
		}
		return err
	})
}

// expire commits what passed deadlines mean, each by itself: one that was overtaken must not keep
// the others.
func (d *Duties) expire(ctx context.Context, n Node, keys []string) error {
	now := d.Clock.Now()
	var errs []error
	var proposals []fsm.Proposal
	var proposed []string
	operations := 0
	commit := func() {
		errs = append(errs, d.commitExpired(ctx, n, proposals, proposed))
		proposals, proposed, operations = nil, nil, 0
	}
	for _, key := range keys {
		cmd, err := d.Services.Expire(d.Catalog, key, now)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		if cmd == nil {
			continue
		}
		p, err := fsm.NewProposal(cmd)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		proposals, proposed = append(proposals, p), append(proposed, key)
		if operations += len(cmd.GetOperations()); operations >= expireOperations {
			commit()
		}
	}
	if len(proposals) > 0 {
		commit()
	}
	return errors.Join(errs...)
}

// commitExpired commits what was made of passed deadlines.
func (d *Duties) commitExpired(ctx context.Context, n Node, proposals []fsm.Proposal, keys []string) error {
	var errs []error
	for i, outcome := range n.ProposeAll(ctx, proposals) {
		errs = append(errs, outcome.Err)
		if outcome.Err != nil || outcome.Result.GetFailedReason() != "" {
			continue
		}
		if kind, name := catalog.Deadline(keys[i]); kind == catalog.DeadlineReap {
			if left, _ := d.Catalog.Node(name); left.Node != nil {
				d.Deadlines.Set(keys[i], time.Millisecond) // It had more instances than one commit deregisters.
				continue
			}
		}
		d.expired(ctx, keys[i])
	}
	return errors.Join(errs...)
}

// expired says what happened.
func (d *Duties) expired(ctx context.Context, key string) {
	kind, name := catalog.Deadline(key)
	d.Expired.WithLabelValues(kind).Inc()
	switch kind {
	case catalog.DeadlineHeartbeat:
		d.Log.WarnContext(ctx, "a node sends no heartbeats; its instances are critical", "node", name)
	case catalog.DeadlineReap:
		d.Log.InfoContext(ctx, "a dead node was deregistered", "node", name)
	case catalog.DeadlineEmpty:
		d.Log.InfoContext(ctx, "a node without instances was deregistered", "node", name)
	default:
		d.Log.DebugContext(ctx, "a check got no report in time", "check", name)
	}
}
