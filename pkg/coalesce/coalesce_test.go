package coalesce_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/coalesce"
)

func TestQueueSendsALoneItemAtOnceAndTheRestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var mu sync.Mutex
		var batches [][]int
		q := coalesce.NewQueue(coalesce.Params[int]{
			Trips: 1, Capacity: 100,
			Take: func(waiting []int) int { return min(len(waiting), 3) },
			Do: func(batch []int) {
				mu.Lock()
				batches = append(batches, batch)
				mu.Unlock()
				<-release
			},
		})
		for i := range 6 {
			require.True(t, q.Add(i))
			synctest.Wait()
		}
		require.Equal(t, [][]int{{0}}, batches)
		require.Equal(t, 6, q.Held())
		close(release)
		synctest.Wait()
		require.Equal(t, [][]int{{0}, {1, 2, 3}, {4, 5}}, batches)
		require.Zero(t, q.Held())
	})
}

func TestQueueRefusesWhatDoesNotFitAsAWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var done atomic.Int64
		q := coalesce.NewQueue(coalesce.Params[int]{
			Trips: 2, Capacity: 3,
			Take: func([]int) int { return 1 },
			Do:   func(batch []int) { <-release; done.Add(int64(len(batch))) },
		})
		require.True(t, q.Add(1, 2))
		require.False(t, q.Add(3, 4))
		require.True(t, q.Add(5))
		close(release)
		synctest.Wait()
		require.EqualValues(t, 3, done.Load())
		require.True(t, q.Add(6, 7, 8))
	})
}

func TestQueueBoundsWhatItsItemsWeigh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		q := coalesce.NewQueue(coalesce.Params[int]{
			Trips: 1, Capacity: 10, MaxWeight: 5, Weigh: func(i int) int { return i },
			Take: func([]int) int { return 1 },
			Do:   func([]int) { <-release },
		})
		require.True(t, q.Add(9), "alone it may be heavier")
		require.False(t, q.Add(1))
		close(release)
		synctest.Wait()
		require.True(t, q.Add(2, 3))
	})
}

func TestARoundBeginsAfterTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		release := make(chan struct{})
		var rounds coalesce.Rounds[int64]
		ask := func() (int64, error) {
			n := asked.Add(1)
			<-release
			return n, nil
		}
		answers := make(chan int64, 3)
		join := func() {
			n, err := rounds.Join(t.Context(), ask)
			require.NoError(t, err)
			answers <- n
		}
		go join()
		synctest.Wait()
		go join()
		go join()
		synctest.Wait()
		require.EqualValues(t, 1, asked.Load())
		close(release)
		require.ElementsMatch(t, []int64{1, 2, 2}, []int64{<-answers, <-answers, <-answers})
	})
}

func TestACallerMayLeaveARound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var rounds coalesce.Rounds[int]
		ctx, cancel := context.WithCancelCause(t.Context())
		enough := errors.New("enough")
		go func() {
			synctest.Wait()
			cancel(enough)
		}()
		_, err := rounds.Join(ctx, func() (int, error) { <-release; return 1, nil })
		require.ErrorIs(t, err, enough)
		close(release)
	})
}
