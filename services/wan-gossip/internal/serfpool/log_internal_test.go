package serfpool

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAFewLinesOfEachKindPass(t *testing.T) {
	s, now := &sampler{kinds: map[string]*kind{}}, time.Unix(1000, 0)
	passed := 0
	for i := range 100 {
		pass, held := s.pass(fmt.Sprintf("memberlist: Decrypt packet failed: no key from=192.0.2.%d:1", i), now)
		require.Zero(t, held)
		if pass {
			passed++
		}
	}
	require.Equal(t, linesPerPeriod, passed)
	pass, _ := s.pass("memberlist: Suspect n1.eu has failed, no acks received", now)
	require.True(t, pass, "another kind is not held back with it")

	pass, held := s.pass("memberlist: Decrypt packet failed: no key", now.Add(period))
	require.True(t, pass)
	require.Equal(t, 100-linesPerPeriod, held)
	pass, held = s.pass("memberlist: Decrypt packet failed: no key", now.Add(period))
	require.True(t, pass)
	require.Zero(t, held, "said once")

	for i := range 10 * maxKinds {
		s.pass(fmt.Sprintf("memberlist: Suspect n%d.eu has failed", i), now)
	}
	require.LessOrEqual(t, len(s.kinds), maxKinds)
}
