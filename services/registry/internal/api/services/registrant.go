package services

import (
	"context"
	"hash/maphash"
	"strings"
	"sync"

	"konsul.dev/pkg/rpc"
)

// Who registered an instance, as its row says.
const (
	byAgent = "agent"
	byToken = "token:"
)

// registrant returns who registers: a token, or an agent as itself. It is the same whichever server
// takes the call: who passes an agent's call on is a registry without a token.
func registrant(ctx context.Context) string {
	caller := rpc.CallerFrom(ctx)
	switch {
	case caller.Accessor != "":
		return byToken + caller.Accessor
	case caller.Peer.Service == "agent", caller.Peer.Service == "registry":
		return byAgent
	}
	return ""
}

// OwnerExists returns a function that reports whether whoever registered something can come back. A
// token that was deleted cannot, and must not keep an id from those who come after it.
func OwnerExists(tokens interface{ Exists(accessor string) bool }) func(registeredBy string) bool {
	return func(by string) bool {
		accessor, token := strings.CutPrefix(by, byToken)
		return !token || tokens.Exists(accessor)
	}
}

// turns keeps registrations on a node and its deregistration apart, from the plan to the commit: no
// condition on rows that are there says that a new instance has come. Nodes may share a turn.
type turns struct {
	seed  maphash.Seed
	locks [64]sync.RWMutex
}

func newTurns() *turns { return &turns{seed: maphash.MakeSeed()} }

func (t *turns) of(node string) *sync.RWMutex {
	return &t.locks[maphash.String(t.seed, node)%uint64(len(t.locks))]
}

// stay waits for deregistrations of a node, and returns what lets the next of them begin.
func (t *turns) stay(node string) (done func()) {
	lock := t.of(node)
	lock.RLock()
	return lock.RUnlock
}

// leave waits for registrations on a node, and returns what lets others begin.
func (t *turns) leave(node string) (done func()) {
	lock := t.of(node)
	lock.Lock()
	return lock.Unlock
}
