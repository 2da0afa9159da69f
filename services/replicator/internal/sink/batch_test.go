package sink

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
)

func TestSplitKeepsOrderAndLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := Limits{Entries: rapid.IntRange(1, 5).Draw(t, "entries"), Bytes: rapid.IntRange(1, 200).Draw(t, "bytes")}
		var entries []*federationv1.ReplicatedEntry
		for i, size := range rapid.SliceOfN(rapid.IntRange(0, 150), 0, 20).Draw(t, "sizes") {
			entries = append(entries, &federationv1.ReplicatedEntry{ModifyIndex: int64(i), Value: make([]byte, size)})
		}
		var joined []*federationv1.ReplicatedEntry
		for _, batch := range split(entries, limits) {
			require.NotEmpty(t, batch)
			require.LessOrEqual(t, len(batch), limits.Entries)
			bytes := 0
			for _, e := range batch {
				bytes += proto.Size(e)
			}
			require.True(t, len(batch) == 1 || bytes <= limits.Bytes, "%d bytes in %d entries", bytes, len(batch))
			joined = append(joined, batch...)
		}
		require.Equal(t, entries, joined)
	})
}
