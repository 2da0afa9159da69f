package audit

import (
	"context"
	"strings"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
)

// EntryOf returns the entry of a call under ctx that ended with err: who called, from where, and
// how it ended.
func EntryOf(ctx context.Context, fullMethod string, err error) Entry {
	caller := rpc.CallerFrom(ctx)
	e := Entry{Accessor: caller.Accessor, Peer: caller.Peer.String(), Method: fullMethod, Outcome: "OK"}
	if id, ok := rpc.PeerID(ctx); ok {
		e.Peer = id.String()
	}
	if err != nil {
		e.Outcome = strings.TrimSpace(rpc.ToStatus(err).Code().String() + " " + fault.ReasonOf(err))
	}
	if f, ok := fault.As(err); ok && e.Accessor == "" {
		e.Accessor = f.Meta()["accessor"]
	}
	return e
}
