package api

import (
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestACrewDoesEverythingAndKeepsFewWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := make(chan struct{})
		c := newCrew(ends)
		var mu sync.Mutex
		done := map[int]bool{}
		for i := range 3 * mostIdle {
			c.do(func() {
				mu.Lock()
				defer mu.Unlock()
				done[i] = true
			})
		}
		synctest.Wait()
		require.Len(t, done, 3*mostIdle)
		require.Len(t, c.idle, mostIdle)

		hold := make(chan struct{})
		c.do(func() { <-hold })
		synctest.Wait()
		require.Len(t, c.idle, mostIdle-1, "one of those who waited does it")
		close(hold)
		synctest.Wait()
		require.Len(t, c.idle, mostIdle)
		close(ends) // Those who wait go, or the bubble would not end.
	})
}
