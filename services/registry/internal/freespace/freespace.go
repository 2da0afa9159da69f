// Package freespace ends a server in order while its disk still has room for that.
//
// The store writes through mapped memory: on a file system without room that is a fault that no Go
// code can handle, in the middle of a write. So a server stops while there is room for what a stop
// writes, and does not start before there is. What others write between two looks is not seen:
// leave room for it too. A Guard is used by one goroutine at a time.
package freespace

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"konsul.dev/pkg/fault"
)

// ReasonDiskFull says that the file system of the data folder has too little room to go on.
const ReasonDiskFull = "DISK_FULL"

const (
	// interval is how often a Guard looks: what a fast disk takes in between is a few percent of
	// the default Least.
	interval = 100 * time.Millisecond
	// tell is how often a server that waits for room says so.
	tell = time.Minute
)

// Guard looks after the room that a folder's file system has.
type Guard struct {
	// Dir is the folder; it must exist.
	Dir string
	// Least is how many bytes must be free to go on; 0 looks after nothing. A start asks for a
	// quarter more, so that a server does not stop right after it.
	Least uint64
	// Free returns how many bytes are free for this process where a folder lies: Available, but in
	// tests.
	Free func(dir string) (uint64, error)
	Log  *slog.Logger
}

// Await returns when there is room to start, or with ReasonDiskFull when ctx ends before.
func (g Guard) Await(ctx context.Context) error {
	if g.Least == 0 {
		return nil
	}
	need := g.Least + g.Least/4
	var told time.Time
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		free, err := g.Free(g.Dir)
		if err != nil {
			return fmt.Errorf("look for room in %q: %w", g.Dir, err)
		}
		if free >= need {
			return nil
		}
		if time.Since(told) >= tell {
			told = time.Now()
			g.Log.Warn("waiting for room on the disk", "path", g.Dir, "free_bytes", free, "needed_bytes", need)
		}
		select {
		case <-ctx.Done():
			return g.full(free, need)
		case <-ticker.C:
		}
	}
}

// Run returns ReasonDiskFull when less than Least is free, and nil when ctx ends.
func (g Guard) Run(ctx context.Context) error {
	if g.Least == 0 {
		return nil
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		free, err := g.Free(g.Dir)
		if err == nil && free < g.Least {
			return g.full(free, g.Least)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (g Guard) full(free, need uint64) error {
	return fault.New(fault.FailedPrecondition, ReasonDiskFull, "the file system of %q has %d bytes free, the registry needs %d", g.Dir, free, need).
		WithRemedy("make room, and start the server again; registry.min_free_bytes says how much it needs")
}

// Measure registers how many bytes are free.
func (g Guard) Measure(registerer prometheus.Registerer) {
	registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "konsul_registry_disk_free_bytes",
		Help: "How many bytes are free on the file system of the registry's data folder.",
	}, func() float64 {
		free, err := g.Free(g.Dir)
		if err != nil {
			return -1
		}
		return float64(free)
	}))
}
