package topology

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestUnionWhereGossipWins(t *testing.T) {
	var k Known
	k, changed := k.withRegistry(map[string][]string{"west": {"old:8443"}, "eu": {"eu:8443", "nonsense", ":8443", "eu:8443"}})
	require.True(t, changed)
	k, changed = k.withGossip(map[string][]string{"west": {"new:8443"}, "mars": {}}, time.Unix(1000, 0))
	require.True(t, changed)
	require.Equal(t, map[string][]string{"west": {"new:8443"}, "eu": {"eu:8443"}, "mars": {}}, k.Remotes())
}

func TestGossipThatMentionsNobodyForgetsNobodySoon(t *testing.T) {
	at := time.Unix(1000, 0)
	var k Known
	k, _ = k.withGossip(map[string][]string{"west": {"w:8443"}}, at)
	k, changed := k.withGossip(map[string][]string{}, at.Add(time.Hour))
	require.False(t, changed)
	k, changed = k.withGossip(map[string][]string{"west": {}}, at.Add(2*time.Hour))
	require.True(t, changed, "seen again")
	require.Equal(t, []string{"w:8443"}, k.Remotes()["west"], "an empty word does not replace a full one")
	k, changed = k.withGossip(map[string][]string{}, at.Add(2*time.Hour+remember))
	require.True(t, changed)
	require.Empty(t, k.Remotes())
}

func TestHeartbeatsAreNoNews(t *testing.T) {
	at := time.Unix(1000, 0)
	var k Known
	k, _ = k.withGossip(map[string][]string{"west": {"a:1", "b:1"}}, at)
	_, changed := k.withGossip(map[string][]string{"west": {"b:1", "a:1"}}, at.Add(5*time.Second))
	require.False(t, changed)
	k, _ = k.withRegistry(map[string][]string{"west": {"a:1"}})
	_, changed = k.withRegistry(map[string][]string{"west": {"a:1"}})
	require.False(t, changed)
	k, changed = k.withRegistry(map[string][]string{})
	require.True(t, changed, "the record is the whole truth of the registry")
	require.Len(t, k.Remotes(), 1)
}
