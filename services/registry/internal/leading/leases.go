package leading

import (
	"context"
	"errors"

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
	d.persist(ctx, "leases", func() error { return d.Leases.Lead(ctx, d.Store, d.Log, propose) })
}
