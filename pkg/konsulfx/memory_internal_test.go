package konsulfx

import (
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGarbageIsInProportionToWhatACollectionLooksThrough(t *testing.T) {
	const mib = 1 << 20
	for name, c := range map[string]struct {
		live, scanned uint64
		want          int
	}{
		"nothing yet":            {0, 0, gcPercent},
		"a small service":        {8 * mib, 5 * mib, gcPercent},
		"a registry":             {26 * mib, 10 * mib, gcPercent},
		"while tables are built": {64 * mib, 10 * mib, 25},
		"a large catalogue":      {200 * mib, 150 * mib, gcPercent},
		"buffers only":           {1000 * mib, 10 * mib, leastGCPercent},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, percentFor(c.live, c.scanned)) })
	}
}

func TestTheCollectorIsTold(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
	buffer := make([]byte, 256<<20)
	runtime.GC()
	next := paceGC(gcPercent)
	require.Less(t, next, gcPercent)
	require.Equal(t, next, debug.SetGCPercent(next), "it was set")
	runtime.KeepAlive(buffer)
}
