package konsulfx

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSmallHeapsHaveTheLeastHeadroom(t *testing.T) {
	require.EqualValues(t, 200, percentFor(0, 0), "before the first collection nothing is known")
	require.EqualValues(t, 100, percentFor(leastHeadroom, 0))
	require.EqualValues(t, gcPercent, percentFor(1<<30, 0))
}

func TestAHeapFillsUpToWhatItMay(t *testing.T) {
	const may = 64 << 20
	require.EqualValues(t, 300, percentFor(16<<20, may))
	require.EqualValues(t, 100, percentFor(32<<20, may))
	require.EqualValues(t, 60, percentFor(40<<20, 48<<20), "half of it at the least")
	require.EqualValues(t, 40, percentFor(40<<20, 8<<20), "and the least headroom")
	require.EqualValues(t, gcPercent, percentFor(1<<30, may))
	defer heap.Store(heap.Load())
	KeepHeap(2)
	KeepHeap(1)
	require.EqualValues(t, 2, heap.Load())
}

// What is set follows what is alive, collection after collection.
func TestThePercentageFollowsWhatIsAlive(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	c := &collector{}
	c.collected()
	large := make([]byte, 100<<20)
	follows := func(want func(percent int64) bool) {
		t.Helper()
		require.Eventually(t, func() bool {
			runtime.GC()
			return want(c.percent.Load())
		}, time.Minute, time.Millisecond)
	}
	follows(func(percent int64) bool { return percent == gcPercent })
	runtime.KeepAlive(large)
	follows(func(percent int64) bool { return percent > 2*gcPercent })
}
