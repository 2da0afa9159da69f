package registry

import (
	"context"
	"time"

	"konsul.dev/pkg/obs"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/raftnode"
)

// reapEvery is how often the leader looks for tokens whose time is over. Nothing waits for it: every
// server refuses them at once, by its own clock.
const reapEvery = 5 * time.Second

// reap deletes tokens whose time is over: the own datacenter's, and in the primary the global ones.
func (d *duties) reap(ctx context.Context, n *raftnode.Node) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.deps.Clock.After(reapEvery):
		}
		for _, row := range d.state.tokens.Expired(d.deps.Clock.Now(), d.state.federation.IsPrimary()) {
			if _, err := n.Propose(ctx, acl.Reap(row)); err != nil {
				d.deps.Telemetry.Log.Warn("an expired token could not be deleted; trying again", obs.KeyError, err)
				break
			}
		}
	}
}
