package badgerstore

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

func TestDiskStaysBoundedUnderOverwrites(t *testing.T) {
	o := testOptions(t.TempDir())
	o.Retention = 1000
	s := mustOpen(t, o)
	s.Measure(prometheus.NewRegistry())
	random := rand.New(rand.NewPCG(1, 2))
	value := make([]byte, 4096)
	written := int64(0)
	// Five tables that wait to be merged, three memtables, and what they are merged into.
	const bound = 64 << 20
	for index := uint64(1); index <= 50_000; {
		b := s.Begin()
		for range 50 {
			for i := range value {
				value[i] = byte(random.Uint32())
			}
			size := 1024 + random.IntN(3072)
			written += int64(size)
			require.NoError(t, b.At(index).Put(row(fmt.Sprintf("key-%d", random.IntN(200)), string(value[:size]), index)))
			index++
		}
		require.NoError(t, b.Commit())
		if index%5000 == 1 {
			require.NoError(t, s.reclaim(t.Context()))
			t.Logf("%d MiB written, %d MiB on disk", written>>20, s.bytes.Load()>>20)
		}
	}
	require.Greater(t, written, int64(bound*3/2))
	// Tables are merged in the background, on a busy machine some time later.
	require.Eventually(t, func() bool {
		require.NoError(t, s.reclaim(t.Context()))
		return s.bytes.Load() < bound
	}, 20*time.Second, 50*time.Millisecond)
	require.Equal(t, s.Oldest(), s.Applied()-o.Retention)
	require.NoError(t, s.ViewAt(s.Oldest(), func(r record.Reader) error {
		rows := 0
		err := r.Scan(kv, record.ScanOptions{}, func(*registryv1.Record) bool { rows++; return true })
		require.Equal(t, 200, rows)
		return err
	}))
	require.Less(t, testutil.ToFloat64(s.diskGauge()), float64(bound))
}

func TestDeletedRowsLeaveNothingBehind(t *testing.T) {
	o := testOptions(t.TempDir())
	o.Retention = 100
	s := mustOpen(t, o)
	for index := uint64(1); index <= 3000; index += 2 {
		key := fmt.Sprintf("key-%d", index)
		commit(t, s, key, "v", index)
		commit(t, s, key, "", index+1)
	}
	require.NoError(t, s.reclaim(t.Context()))
	tombstones := 0
	require.NoError(t, s.View(func(r record.Reader) error {
		return r.Scan(kv, record.ScanOptions{Deleted: true}, func(row *registryv1.Record) bool {
			tombstones++
			require.Greater(t, row.GetModifyIndex(), s.Watermark())
			return true
		})
	}))
	require.Equal(t, 50, tombstones, "those of the window")
}

func TestSyncKeepsOutOfARestore(t *testing.T) {
	s := mustOpen(t, testOptions(t.TempDir()))
	step(t, s, 1, 3)
	s.gate.Lock() // As Restore holds it.
	synced := make(chan struct{})
	go func() {
		_, _ = s.Sync()
		close(synced)
	}()
	select {
	case <-synced:
		t.Fatal("the files were said to be good in the middle of a restore")
	case <-time.After(50 * time.Millisecond):
	}
	s.gate.Unlock()
	<-synced
}
