package sink

import (
	"google.golang.org/protobuf/proto"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
)

// Limits bounds what goes into one commit.
type Limits struct {
	// Entries is the most entries.
	Entries int
	// Bytes is the most encoded bytes, unless a single entry is larger.
	Bytes int
}

// split cuts entries into batches within the limits, in order. No entries make no batch.
func split(entries []*federationv1.ReplicatedEntry, limits Limits) [][]*federationv1.ReplicatedEntry {
	var batches [][]*federationv1.ReplicatedEntry
	start, size := 0, 0
	for i, e := range entries {
		bytes := proto.Size(e)
		if i > start && (i-start >= limits.Entries || size+bytes > limits.Bytes) {
			batches = append(batches, entries[start:i])
			start, size = i, 0
		}
		size += bytes
	}
	if start < len(entries) {
		batches = append(batches, entries[start:])
	}
	return batches
}
