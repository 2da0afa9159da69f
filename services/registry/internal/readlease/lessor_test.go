package readlease

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// holders play the servers that hold leases.
type holders struct {
	mu       sync.Mutex
	recalled []Lease
	// silent do not answer.
	silent map[string]bool
}

func (h *holders) recall(ctx context.Context, server string, lease Lease) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.silent[server] {
		return errors.New("nobody there")
	}
	h.recalled = append(h.recalled, lease)
	return ctx.Err()
}

const lasting = 150 * time.Millisecond

func leading() (uint64, time.Duration)    { return 3, time.Second }
func notLeading() (uint64, time.Duration) { return 0, 0 }

func newLessor(h *holders) *Lessor {
	return NewLessor(Monotonic(), lasting, h.recall, func(Event) {})
}

func TestNothingIsWrittenWhileAReadLeaseIsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &holders{}
		lessor := newLessor(h)
		require.Zero(t, lessor.Give("s2", notLeading))
		first, second := lessor.Give("s2", leading), lessor.Give("s3", leading)
		require.Equal(t, Lease{Term: 3, Number: 1, Lasts: lasting}, first)
		require.Equal(t, uint64(2), second.Number)

		resume := lessor.Pause()
		require.ElementsMatch(t, []Lease{first, second}, h.recalled)
		require.Zero(t, lessor.Give("s2", leading), "somebody writes")
		require.Zero(t, lessor.Lasts())
		resume()
		require.Zero(t, lessor.Give("s2", leading), "somebody has just written")
		time.Sleep(rest)
		require.Equal(t, uint64(3), lessor.Give("s2", leading).Number)
		short := lessor.Give("s3", func() (uint64, time.Duration) { return 3, lasting / 2 })
		require.Equal(t, lasting/2, short.Lasts, "it ends within the leader lease")
	})
}

func TestAWriteOutlastsTheReadLeaseOfAServerThatIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &holders{silent: map[string]bool{"s2": true}}
		lessor := newLessor(h)
		lessor.Give("s2", leading)
		lessor.Give("s3", leading)
		const later = lasting / 3
		time.Sleep(later)
		begun := time.Now()
		defer lessor.Pause()()
		require.Equal(t, lasting-later, time.Since(begun))
		require.Len(t, h.recalled, 1)
		begun = time.Now()
		defer lessor.Pause()()
		require.Zero(t, time.Since(begun), "one that has ended is not waited for")
	})
}

// In real time: virtual time stands still while a writer waits for another one's lock.
func TestEveryWriterWaitsUntilAllReadLeasesAreBack(t *testing.T) {
	t.Parallel()
	lessor := newLessor(&holders{silent: map[string]bool{"s2": true}})
	begun := time.Now()
	lessor.Give("s2", leading)
	var writers sync.WaitGroup
	for range 3 {
		writers.Go(func() {
			defer lessor.Pause()()
			if waited := time.Since(begun); waited < lasting {
				t.Errorf("a writer went on after %v", waited)
			}
		})
	}
	writers.Wait()
}

func TestALessorWithoutRecallGivesNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lessor := NewLessor(Monotonic(), lasting, nil, func(Event) {})
		require.Zero(t, lessor.Give("s2", leading))
	})
}

func TestOnlyTheNewestReadLeaseCounts(t *testing.T) {
	for name, c := range map[string]struct {
		recalled [2]uint64
		lease    Lease
		taken    bool
	}{
		"none":         {},
		"first":        {lease: Lease{4, 1, lasting}, taken: true},
		"taken back":   {recalled: [2]uint64{4, 1}, lease: Lease{4, 1, lasting}},
		"older":        {recalled: [2]uint64{4, 2}, lease: Lease{4, 1, lasting}},
		"newer":        {recalled: [2]uint64{4, 2}, lease: Lease{4, 3, lasting}, taken: true},
		"earlier term": {recalled: [2]uint64{4, 2}, lease: Lease{3, 9, lasting}},
		"later term":   {recalled: [2]uint64{4, 2}, lease: Lease{5, 1, lasting}, taken: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := NewHolder(Monotonic())
				h.Recall(c.recalled[0], c.recalled[1])
				h.Take(c.lease, 7, h.Elapsed())
				index, ok := h.Index()
				require.Equal(t, c.taken, ok)
				if !ok {
					return
				}
				require.EqualValues(t, 7, index)
				h.Recall(c.lease.Term, c.lease.Number-1)
				_, ok = h.Index()
				require.True(t, ok, "it is not what was taken back")
				h.Recall(c.lease.Term, c.lease.Number)
				_, ok = h.Index()
				require.False(t, ok)
			})
		})
	}
}

func TestALeaderLeaseEndsBeforeAnotherServerIsElected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLeader(Monotonic(), 500*time.Millisecond, 400*time.Millisecond)
		require.Zero(t, l.Left(3))
		began := l.Elapsed()
		l.Renew(3, began)
		require.Equal(t, 375*time.Millisecond, l.Left(3), "less than the heartbeat timeout, by what clocks may differ")
		require.Zero(t, l.Left(4))
		time.Sleep(375 * time.Millisecond)
		require.Zero(t, l.Left(3))
		l.Renew(3, l.Elapsed())
		l.Release(3)
		require.Zero(t, l.Left(3), "its successor waits for no lease")
		l.Renew(3, l.Elapsed())
		require.Zero(t, l.Left(3))
	})
}
