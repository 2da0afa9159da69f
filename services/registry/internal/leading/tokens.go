package leading

import (
	"context"
	"time"

	"konsul.dev/pkg/obs"
	"konsul.dev/services/registry/internal/acl"
)

// reapEvery is how often the leader looks for tokens whose time is over. Nothing waits for it:
// every server refuses them at once, by its own clock.
const reapEvery = 5 * time.Second

// reapTokens deletes tokens whose time is over: the own datacenter's, and in the primary the global
// ones.
func (d *Duties) reapTokens(ctx context.Context, n Node) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.Clock.After(reapEvery):
		}
		for _, row := range d.Tokens.Expired(d.Clock.Now(), d.Federation.IsPrimary()) {
			if _, err := n.Propose(ctx, acl.Reap(row)); err != nil {
				d.Log.Warn("an expired token could not be deleted; trying again", obs.KeyError, err)
				break
			}
		}
	}
}
