package konsulfx

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSmallHeapsHaveTheLeastHeadroom(t *testing.T) {
	require.EqualValues(t, 200, percentFor(0), "before the first collection nothing is known")
	require.EqualValues(t, 100, percentFor(leastHeadroom))
	require.EqualValues(t, gcPercent, percentFor(1<<30))
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
