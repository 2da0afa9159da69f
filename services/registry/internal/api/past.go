package api

import (
	"context"
	"time"

	"konsul.dev/services/registry/internal/record"
)

// aheadWait is how long a read as of an index waits for this server to get there: a follower is
// behind its leader by less.
const aheadWait = time.Second

// Dated is a read request that may name an index to read at.
type Dated interface{ GetAtIndex() uint64 }

// View runs fn on the latest state, or on the one as of the index that the request names.
func (c *Core) View(ctx context.Context, req Dated, fn func(record.Reader) error) error {
	if req.GetAtIndex() == 0 {
		return c.Store.View(fn)
	}
	if err := c.Reach(ctx, req); err != nil {
		return err
	}
	return c.Store.ViewAt(req.GetAtIndex(), fn)
}

// Reach waits a while until this server has the index that the request names.
func (c *Core) Reach(ctx context.Context, req Dated) error {
	waiting, cancel := context.WithTimeout(ctx, aheadWait)
	defer cancel()
	if err := c.Hub.Await(waiting, req.GetAtIndex()); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return record.Ahead(req.GetAtIndex(), c.Hub.Index())
	}
	return nil
}
