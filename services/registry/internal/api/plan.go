package api

import (
	"context"
	"strconv"
	"time"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/catalog"
	"konsul.dev/services/registry/internal/record"
)

// planTries bounds how often a write is planned anew after it lost a race.
const planTries = 5

// planned commits what plan makes of the stored state; see replan.
func (c *Core) planned(ctx context.Context, requestID string, plan func(r record.Reader) (*registryv1.Command, error)) (*registryv1.CommandResult, error) {
	return c.replan(ctx, requestID, func() (cmd *registryv1.Command, index uint64, err error) {
		err = c.Store.View(func(r record.Reader) (err error) {
			cmd, err = plan(r)
			index = r.Index()
			return err
		})
		return cmd, index, err
	})
}

// change commits what plan makes of the catalogue; see replan. Deadlines are renewed also when there is
// nothing to commit.
func (c *Core) change(ctx context.Context, requestID string, plan func(now time.Time) (*catalog.Plan, error)) (*registryv1.CommandResult, error) {
	var last *catalog.Plan
	result, err := c.replan(ctx, requestID, func() (cmd *registryv1.Command, index uint64, err error) {
		index = c.Catalog.Index()
		if last, err = plan(c.Clock.Now()); err != nil {
			return nil, 0, err
		}
		return last.Command, index, nil
	})
	if err != nil {
		return nil, err
	}
	if result.GetFailedReason() != "" {
		return nil, catalog.Moved()
	}
	for _, key := range last.Renews {
		c.Deadlines.Renew(key)
	}
	return result, nil
}

// replan commits what plan makes of the state at an index, and plans anew when the state moved in
// between. Each try has a request id of its own, made of the caller's, so that a retry of the whole
// finds the outcome of the try that succeeded. A plan without operations needs no commit.
func (c *Core) replan(ctx context.Context, requestID string, plan func() (*registryv1.Command, uint64, error)) (*registryv1.CommandResult, error) {
	var result *registryv1.CommandResult
	for try := range planTries {
		cmd, index, err := plan()
		if err != nil {
			return nil, err
		}
		if len(cmd.GetOperations()) == 0 {
			return &registryv1.CommandResult{Index: index}, nil
		}
		cmd.RequestId = tryID(requestID, try)
		result, err = c.Commit(ctx, cmd)
		if err != nil || !moved(result) {
			return result, err
		}
	}
	return result, nil
}

// moved says whether a plan failed for no other reason than that what it was made of has changed.
func moved(result *registryv1.CommandResult) bool {
	reason := result.GetFailedReason()
	return reason == catalog.ReasonCheckMoved || reason == acl.ReasonMoved
}

// tryID answers the request id of a try.
func tryID(requestID string, try int) string {
	if try > 0 && requestID != "" {
		return requestID + "#" + strconv.Itoa(try)
	}
	return requestID
}

// restID answers the request id of a command about what earlier ones of the same request left.
func restID(requestID string, before int) string {
	if before > 0 && requestID != "" {
		return requestID + "#rest" + strconv.Itoa(before)
	}
	return requestID
}
