package badgerstore

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAFilterKnowsEveryKeyAndHardlyAnyOther(t *testing.T) {
	const size, rowBytes = 3 << 20, 400
	f := newFilter(size)
	key := func(kind string, n int) uint32 { return hashOf(fmt.Appendf(nil, "local/%s/%08d", kind, n)) }
	for n := range size / rowBytes {
		f.add(key("there", n))
	}
	wrong := 0
	for n := range size / rowBytes {
		require.True(t, f.may(key("there", n)))
		if f.may(key("elsewhere", n)) {
			wrong++
		}
	}
	require.Less(t, wrong, size/rowBytes/20)
	require.False(t, newFilter(0).may(key("there", 0)))
}
