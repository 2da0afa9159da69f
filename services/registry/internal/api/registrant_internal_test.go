package api

import (
	"context"
	"testing"
	"testing/synctest"

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

// A deregistration must not plan between the plan and the commit of a registration on its node, nor the other way round.
func TestANodeIsNotDeregisteredWhileSomethingIsRegisteredOnIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := newTurns()
		first, second := nodes.stay("n1"), nodes.stay("n1")
		var events []string
		leaving, cancel := context.WithCancel(t.Context())
		go func() {
			defer cancel()
			defer nodes.leave("n1")()
			events = append(events, "deregistered")
		}()
		synctest.Wait()
		require.Empty(t, events, "two registrations go on")
		first()
		synctest.Wait()
		require.Empty(t, events, "one goes on")
		events = append(events, "registered")
		second()
		<-leaving.Done()
		require.Equal(t, []string{"registered", "deregistered"}, events)
	})
}
