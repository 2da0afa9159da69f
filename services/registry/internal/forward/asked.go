package forward

import (
	"context"
	"strings"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/requestid"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/fsm"
)

// asked is what a caller asked under a request id of its own.
type asked struct {
	requestID string
	digest    uint64
}

type askedKey struct{}

func asking(ctx context.Context, requestID string, req any) context.Context {
	return context.WithValue(ctx, askedKey{}, asked{requestID, fsm.DigestOf(req)})
}

// sign notes on a command what the caller asked, if it is one of those that the call's request id
// stands for. Members that do not know of it would refuse the command, so it is left out then, and
// so are the bound on deletions and that the id was minted.
func sign(ctx context.Context, cmd *registryv1.Command, admit func(version uint32) error) {
	a, ok := ctx.Value(askedKey{}).(asked)
	if ok && (cmd.GetRequestId() == a.requestID || strings.HasPrefix(cmd.GetRequestId(), a.requestID+"#")) {
		cmd.Digest = a.digest
	}
	if cmd.GetDigest() != 0 && admit(fsm.Digests) != nil {
		cmd.Digest = 0
	}
	if cmd.GetMaxDeleted() != 0 && admit(fsm.Bounds) != nil {
		cmd.MaxDeleted = 0
	}
	cmd.Minted = requestid.Minted(cmd.GetRequestId()) && admit(fsm.Minted) == nil
}

func reused(requestID string) error {
	return fault.New(fault.AlreadyExists, fsm.FailedReused, "request id %q was used for something else", requestID).
		WithField("request_id").WithRemedy("use a new request id for each request; repeat a request only as it was")
}
