package raftnode

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// lessees play the servers that hold leases.
type lessees struct {
	mu       sync.Mutex
	recalled []ReadLease
	// silent do not answer.
	silent map[string]bool
}

func (l *lessees) recall(ctx context.Context, server string, lease ReadLease) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.silent[server] {
		return errors.New("nobody there")
	}
	l.recalled = append(l.recalled, lease)
	return ctx.Err()
}

func newLeases(t *testing.T, l *lessees) *readLeases {
	metrics, err := NewMetrics(prometheus.NewRegistry())
	require.NoError(t, err)
	return newReadLeases(l.recall, metrics)
}

const lasting = 150 * time.Millisecond

func leading(time.Time) (uint64, time.Duration)    { return 3, lasting }
func notLeading(time.Time) (uint64, time.Duration) { return 0, 0 }

func TestNothingIsWrittenWhileAReadLeaseIsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lessees{}
		leases := newLeases(t, l)
		require.Zero(t, leases.give("s2", notLeading))
		first, second := leases.give("s2", leading), leases.give("s3", leading)
		require.Equal(t, ReadLease{Term: 3, Number: 1, Lasts: lasting}, first)
		require.Equal(t, uint64(2), second.Number)

		resume := leases.pause()
		require.ElementsMatch(t, []ReadLease{first, second}, l.recalled)
		require.Zero(t, leases.give("s2", leading), "somebody writes")
		require.False(t, leases.resting(time.Now()))
		resume()
		require.Zero(t, leases.give("s2", leading), "somebody has just written")
		time.Sleep(readRest)
		require.Equal(t, uint64(3), leases.give("s2", leading).Number)
	})
}

func TestAWriteOutlastsTheReadLeaseOfAServerThatIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lessees{silent: map[string]bool{"s2": true}}
		leases := newLeases(t, l)
		leases.give("s2", leading)
		leases.give("s3", leading)
		const later = lasting / 3
		time.Sleep(later)
		begun := time.Now()
		defer leases.pause()()
		require.Equal(t, lasting-later, time.Since(begun))
		require.Len(t, l.recalled, 1)
		begun = time.Now()
		defer leases.pause()()
		require.Zero(t, time.Since(begun), "one that has ended is not waited for")
	})
}

func TestEveryWriterWaitsUntilAllReadLeasesAreBack(t *testing.T) {
	leases := newLeases(t, &lessees{silent: map[string]bool{"s2": true}})
	begun := time.Now()
	leases.give("s2", leading)
	var writers sync.WaitGroup
	for range 3 {
		writers.Go(func() {
			defer leases.pause()()
			if waited := time.Since(begun); waited < lasting {
				t.Errorf("a writer went on after %v", waited)
			}
		})
	}
	writers.Wait()
}
