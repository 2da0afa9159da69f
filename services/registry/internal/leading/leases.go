package leading

import (
	"context"
	"errors"
	"time"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/obs"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/fsm"
)

// keepLeases ends leases that nobody keeps alive, as long as this server leads.
func (d *Duties) keepLeases(ctx context.Context, n Node) {
	propose := func(ctx context.Context, cmds []*registryv1.Command) error {
		proposals := make([]fsm.Proposal, len(cmds))
		for i, cmd := range cmds {
			var err error
			if proposals[i], err = fsm.NewProposal(cmd); err != nil {
				return err
			}
		}
		var errs []error
		for _, outcome := range n.ProposeAll(ctx, proposals) {
			errs = append(errs, outcome.Err)
		}
		return errors.Join(errs...)
	}
	pause := backoff.New(50*time.Millisecond, 2*time.Second)
	for ctx.Err() == nil {
		err := d.Leases.Lead(ctx, d.Store, d.Log, propose)
		if err == nil || ctx.Err() != nil {
			return
		}
		d.Log.Warn("leases could not be read; trying again", obs.KeyError, err)
		_ = pause.Wait(ctx) // It fails only when ctx has ended, which the loop sees.
	}
}
