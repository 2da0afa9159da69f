package services

import (
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/rpc"
)

func TestWhoRegistersIsTheTokenOrTheAgent(t *testing.T) {
	for name, c := range map[string]struct {
		caller rpc.Caller
		want   string
	}{
		"a person":                   {rpc.Caller{Peer: identity.ID{Service: "gateway"}, Accessor: "a1"}, "token:a1"},
		"a person, passed on":        {rpc.Caller{Peer: identity.ID{Service: "registry"}, Accessor: "a1"}, "token:a1"},
		"an agent":                   {rpc.Caller{Peer: identity.ID{Service: "agent"}}, "agent"},
		"an agent, passed on":        {rpc.Caller{Peer: identity.ID{Service: "registry"}}, "agent"},
		"nobody that a caller names": {rpc.Caller{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, registrant(rpc.WithCaller(t.Context(), c.caller)))
		})
	}
}

type accessors map[string]bool

func (a accessors) Exists(accessor string) bool { return a[accessor] }

func TestADeletedTokenOwnsNothing(t *testing.T) {
	exists := OwnerExists(accessors{"a1": true})
	require.True(t, exists("token:a1"))
	require.False(t, exists("token:a2"))
	require.True(t, exists("agent"))
}

// A deregistration must not plan between the plan and the commit of a registration on its node, nor
// the other way round.
func TestANodeIsNotDeregisteredWhileSomethingIsRegisteredOnIt(t *testing.T) {
	nodes := newTurns()
	first, second := nodes.stay("n1"), nodes.stay("n1")
	first()
	require.False(t, nodes.of("n1").TryLock(), "one registration goes on")
	second()
	gone := nodes.leave("n1")
	require.False(t, nodes.of("n1").TryRLock(), "the deregistration goes on")
	gone()
	nodes.stay("n1")()
}
