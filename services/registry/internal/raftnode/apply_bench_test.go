package raftnode

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/badgerstore"
	"konsul.dev/services/registry/internal/fsm"
)

// BenchmarkApply applies entries of writes to ten thousand keys, as a follower does all day; an
// operation is one write.
func BenchmarkApply(b *testing.B) {
	for _, together := range []int{1, 64} {
		b.Run(fmt.Sprint(together), func(b *testing.B) {
			store, err := badgerstore.Open(badgerstore.DefaultOptions(b.TempDir(), slog.New(slog.DiscardHandler)))
			require.NoError(b, err)
			defer func() { require.NoError(b, store.Close()) }()
			var maintained sync.WaitGroup
			defer maintained.Wait()
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			maintained.Go(func() { _ = store.Maintain(ctx) }) // It lets go of what is out of the window.
			metrics := NewMetrics(prometheus.NewRegistry())
			m := &machine{store: store, fsm: fsm.New(), sink: &recorder{}, metrics: metrics, fatal: func(err error) { b.Fatal(err) }}
			value := make([]byte, 256)
			entries := make([]*raft.Log, 0, b.N/together+1)
			for written := 0; written < b.N; {
				entry := &registryv1.Command{Time: timestamppb.Now(), Epoch: 1}
				for range together {
					key := fmt.Sprintf("local/bench/%08d", written*7919%10_000)
					p, err := fsm.NewProposal(&registryv1.Command{RequestId: uuid.NewString(), Operations: []*registryv1.Operation{{Op: &registryv1.Operation_Put{
						Put: &registryv1.Record{Table: registryv1.Table_TABLE_KV, Key: key, Value: value, OriginDatacenter: "dc1"},
					}}}})
					require.NoError(b, err)
					entry.Batch = append(entry.Batch, p.Command)
					written++
				}
				data, err := proto.Marshal(entry)
				require.NoError(b, err)
				entries = append(entries, &raft.Log{Type: raft.LogCommand, Index: uint64(len(entries) + 1), Term: 1, Data: data})
			}
			b.ReportAllocs()
			b.ResetTimer()
			for _, e := range entries {
				m.Apply(e)
			}
		})
	}
}
