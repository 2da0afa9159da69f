package roundtrip_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/services/wan-gossip/internal/members"
	"konsul.dev/services/wan-gossip/internal/roundtrip"
)

func TestNearestMemberSpeaksForItsDatacenter(t *testing.T) {
	e := roundtrip.NewEstimator()
	all := []members.Member{{Name: "a", Datacenter: "x"}, {Name: "b", Datacenter: "x"}, {Name: "c", Datacenter: "y"}}
	require.Empty(t, e.Nearest(all))
	e.Observe("a", 10*time.Millisecond)
	e.Observe("b", 4*time.Millisecond)
	require.Equal(t, map[string]time.Duration{"x": 4 * time.Millisecond}, e.Nearest(all))
	e.Observe("b", 12*time.Millisecond)
	require.Equal(t, 5*time.Millisecond, e.Nearest(all)["x"], "one late answer moves it by an eighth")
	require.Equal(t, 10*time.Millisecond, e.Nearest(all[:1])["x"], "b has gone")
	require.Equal(t, 10*time.Millisecond, e.Nearest(all)["x"], "and is forgotten")
}

func TestZeroIsNeverAnswered(t *testing.T) {
	e := roundtrip.NewEstimator()
	e.Observe("a", 0)
	require.Positive(t, e.Nearest([]members.Member{{Name: "a", Datacenter: "x"}})["x"])
}
