package konsulfx

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

const (
	// gcPercent is how much a service allocates, in per cent of what is alive, before garbage is collected. Most of what is alive in a large one
	// are buffers without pointers, which cost a collection nothing: measured in a registry under load, 45 instead of Go's 100 saves a quarter of
	// the memory of 256 clients for a tenth of the processor time.
	gcPercent = 35
	// leastHeadroom is how much it allocates at the least. What a collection costs follows from what is alive, and there is always
	// something: with 45 % of 25 MiB a registry collected a dozen times a second. Measured by turns with that: 24 MiB, 5 to 7 % more
	// registrations for 8 to 20 % more memory; 40 MiB, 13 % for 28.
	leastHeadroom = 16 << 20
	// leastLive is what is taken to be alive at the least.
	leastLive = 8 << 20
)

// heap is what KeepHeap was told, the most of it.
var heap atomic.Int64 //nolint:gochecknoglobals // there is one heap in a process

// KeepHeap lets the process's heap fill up to so many bytes before garbage is collected, however little of it is alive, and where much of it is, by
// half as many; called more than once, to the most of them. It is for services that have much garbage when they are busy: a collection costs by what is alive, not by what it
// frees, and memory that large buffers take now and then is there anyway. It tells from the next collection on.
func KeepHeap(bytes int64) {
	for {
		before := heap.Load()
		if bytes <= before || heap.CompareAndSwap(before, bytes) {
			return
		}
	}
}

// SetGC sets how often garbage is collected, unless the environment's GOGC does. Main calls it.
func SetGC() {
	if os.Getenv("GOGC") == "" {
		(&collector{}).collected()
	}
}

// collector sets the collector's percentage after each collection.
type collector struct {
	// percent is the last one that was set.
	percent atomic.Int64
}

// collected sets what follows from what the last collection left alive, and comes again after the next one.
func (c *collector) collected() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	percent := percentFor(int64(live[0].Value.Uint64()), heap.Load()) //nolint:gosec // less than there is
	const worthWhile = 8                                              // Setting it stops the world for a moment.
	if before := c.percent.Load(); percent < before-before/worthWhile || percent > before+before/worthWhile {
		c.percent.Store(percent)
		debug.SetGCPercent(int(percent))
	}
	type sentinel struct{ _ *int }
	runtime.SetFinalizer(&sentinel{}, func(*sentinel) { c.collected() })
}

// percentFor answers the percentage for so many bytes that are alive, in a heap that may fill up to so many.
func percentFor(live, heap int64) int64 {
	live = max(live, leastLive)
	return max(gcPercent, 100*max(leastHeadroom, heap-live, heap/2)/live)
}
