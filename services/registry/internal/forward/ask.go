package forward

import (
	"context"
	"errors"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// asking returns what to ask a leader with on behalf of many callers, and what to call afterwards.
// The context ends after tripTimeout, and with errLeaderMoved when somebody else leads.
func (r *Router) asking(leader string) (context.Context, registryv1.ProposalServiceClient, func(), error) {
	conn, err := r.Connections.Server(leader)
	if err != nil {
		return nil, nil, nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), tripTimeout)
	ctx, end := r.flights.begin(ctx, leader)
	return ctx, registryv1.NewProposalServiceClient(conn), func() { end(); cancel() }, nil
}

// moved returns the error of a question whose leader leads no more.
func moved(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errLeaderMoved) {
		return errLeaderMoved
	}
	return err
}
