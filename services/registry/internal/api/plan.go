package api

import (
	"context"
	"strconv"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// PlanTries bounds how often a write is planned anew after it lost a race.
const PlanTries = 5

// Planned commits what plan makes of the stored state; see Replan.
func (c *Core) Planned(ctx context.Context, requestID, moved string, plan func(r record.Reader) (*registryv1.Command, error)) (*registryv1.CommandResult, error) {
	return c.Replan(ctx, requestID, moved, func() (cmd *registryv1.Command, index uint64, err error) {
		err = c.Store.View(func(r record.Reader) (err error) {
			cmd, err = plan(r)
			index = r.Index()
			return err
		})
		return cmd, index, err
	})
}

// Replan commits what plan makes of the state at an index, and plans anew when the state moved in
// between, which is when the command failed for the reason moved. Each try has a request id of its
// own, made of the caller's, so that a retry of the whole finds the outcome of the try that
// succeeded. A plan without operations needs no commit.
func (c *Core) Replan(ctx context.Context, requestID, moved string, plan func() (*registryv1.Command, uint64, error)) (*registryv1.CommandResult, error) {
	var result *registryv1.CommandResult
	for try := range PlanTries {
		cmd, index, err := plan()
		if err != nil {
			return nil, err
		}
		if len(cmd.GetOperations()) == 0 {
			return &registryv1.CommandResult{Index: index}, nil
		}
		cmd.RequestId = tryID(requestID, try)
		result, err = c.Commit(ctx, cmd)
		if err != nil || result.GetFailedReason() != moved {
			return result, err
		}
	}
	return result, nil
}

// tryID returns the request id of a try.
func tryID(requestID string, try int) string {
	if try > 0 && requestID != "" {
		return requestID + "#" + strconv.Itoa(try)
	}
	return requestID
}

// RestID returns the request id of a command about what earlier ones of the same request left.
func RestID(requestID string, before int) string {
	if before > 0 && requestID != "" {
		return requestID + "#rest" + strconv.Itoa(before)
	}
	return requestID
}
