package api

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/peer"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
)

// auditMessage is the message of every audit line, for who searches the log.
const auditMessage = "audit"

// A stranger cannot fill the log: no more than so many refusals are written in a while, and the
// next line says how many were not.
const (
	refusalsPerWhile = 20
	refusalWhile     = 10 * time.Second
)

// auditor writes down what was handed out to whom, and what was refused. Safe for concurrent use.
type auditor struct {
	log   *slog.Logger
	clock clock.Clock

	mu       sync.Mutex // guards what follows
	since    time.Time
	refused  int
	unlisted int
}

// handedOut writes that a call was answered with something that others must not have.
func (a *auditor) handedOut(ctx context.Context, method string, what ...any) {
	a.log.InfoContext(ctx, auditMessage, append([]any{"decision", "allowed", obs.KeyMethod, method}, append(caller(ctx), what...)...)...)
}

// Refused writes that a call was refused, if there were not too many of late.
func (a *auditor) Refused(ctx context.Context, method string, err error) {
	unlisted, listed := a.list()
	if !listed {
		return
	}
	a.log.WarnContext(ctx, auditMessage, append([]any{
		"decision", "denied", obs.KeyMethod, method, obs.KeyReason, fault.ReasonOf(err), obs.KeyError, err, "unlisted", unlisted,
	}, caller(ctx)...)...)
}

// list reports whether one more refusal is written, and how many were not since the last one.
func (a *auditor) list() (unlisted int, listed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := a.clock.Now(); now.Sub(a.since) >= refusalWhile || now.Before(a.since) {
		a.since, a.refused = now, 0
	}
	if a.refused >= refusalsPerWhile {
		a.unlisted++
		return 0, false
	}
	unlisted, a.unlisted = a.unlisted, 0
	a.refused++
	return unlisted, true
}

// caller returns who calls and from where; through a gateway, that is the gateway's address.
func caller(ctx context.Context) []any {
	var address string
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		address = p.Addr.String()
	}
	id, _ := rpc.PeerID(ctx)
	tls, _ := rpc.PeerState(ctx)
	return []any{obs.KeyPeer, id.String(), obs.KeyAddress, address, "server_name", tls.ServerName}
}
