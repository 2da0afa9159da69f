package balance_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/services/gateway/internal/balance"
)

func TestOrderPrefersTheLessLoadedOfTwo(t *testing.T) {
	b := balance.New(time.Now, rand.IntN)
	closeA := b.Opened("a")
	for range 20 {
		require.Equal(t, []string{"b", "a"}, b.Order([]string{"a", "b"}))
	}
	closeA()
	closeB := b.Opened("b")
	defer closeB()
	require.Equal(t, "a", b.Order([]string{"a", "b"})[0])
}

func TestLoadStaysEven(t *testing.T) {
	b := balance.New(time.Now, rand.IntN)
	addresses := []string{"a", "b", "c", "d"}
	open := map[string]int{}
	for range 400 {
		first := b.Order(addresses)[0]
		b.Opened(first)
		open[first]++
	}
	for _, a := range addresses {
		require.InDelta(t, 100, open[a], 10, "%v", open)
	}
}

func TestFailedAddressesComeLastForAWhileThatGrows(t *testing.T) {
	now := time.Unix(1000, 0)
	b := balance.New(func() time.Time { return now }, func(int) int { return 0 })
	require.True(t, b.Failed("a"))
	require.Equal(t, []string{"b", "a"}, b.Order([]string{"a", "b"}))
	require.True(t, b.Failed("b"))
	require.False(t, b.Failed("b"), "no news")
	require.Equal(t, []string{"a", "b"}, b.Order([]string{"b", "a"}), "the one that may be back soonest")

	now = now.Add(300 * time.Millisecond)
	require.Equal(t, "a", b.Order([]string{"b", "a"})[0])
	for range 20 {
		b.Failed("a")
	}
	now = now.Add(14 * time.Second)
	require.Equal(t, []string{"b", "a"}, b.Order([]string{"a", "b"}))
	now = now.Add(2 * time.Second)
	require.Len(t, b.Order([]string{"a", "b"}), 2)
	b.Opened("a")()
	b.Failed("a")
	now = now.Add(300 * time.Millisecond)
	require.Equal(t, "a", b.Order([]string{"a"})[0], "a success forgives")
}

func TestMemoryIsBounded(t *testing.T) {
	b := balance.New(time.Now, rand.IntN)
	closed := b.Opened("kept")
	for i := range 10_000 {
		b.Failed(fmt.Sprintf("10.0.0.1:%d", i))
	}
	require.Equal(t, "free", b.Order([]string{"kept", "free"})[0], "an open connection is not forgotten")
	closed()
}

func TestNothingToChooseFrom(t *testing.T) {
	require.Empty(t, balance.New(time.Now, rand.IntN).Order(nil))
}
