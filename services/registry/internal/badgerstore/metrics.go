package badgerstore

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
)

// Measure registers the store's metrics.
func (s *Store) Measure(registerer prometheus.Registerer) {
	registerer.MustRegister(
		s.diskGauge(),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "konsul_registry_store_oldest_index", Help: "Oldest index that can still be read.",
		}, func() float64 { return float64(s.Oldest()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "konsul_registry_store_synced_index", Help: "Index up to which the state survives a power failure without the log.",
		}, func() float64 { return float64(s.synced.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "konsul_registry_store_tail_bytes", Help: "Size of the memtables: what was applied and is not in the store's files yet, but in the Raft log.",
		}, func() float64 { return float64(s.tables.Load().bytes()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "konsul_registry_store_tombstones_purged_total", Help: "Tombstones removed after they fell out of the retention window.",
		}, func() float64 { return float64(s.tombstones.Load()) }),
	)
}

func (s *Store) diskGauge() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "konsul_registry_store_bytes", Help: "What the state occupies on disk, measured once a minute.",
	}, func() float64 { return float64(s.bytes.Load()) })
}

// weigh measures what the store's folder occupies; files that are laid out in advance count as far
// as they are written.
func (s *Store) weigh() error {
	total := int64(0)
	err := filepath.WalkDir(s.opts.Dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				if stat, ok := info.Sys().(*syscall.Stat_t); ok {
					total += stat.Blocks * blockBytes
				}
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // Compaction removed it meanwhile.
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("measure the store's folder: %w", err)
	}
	s.bytes.Store(total)
	return nil
}

// blockBytes is the unit in which the system counts what files occupy.
const blockBytes = 512
