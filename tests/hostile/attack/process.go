package attack

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// MiB is 2^20 bytes.
const MiB = 1 << 20

// sampleInterval is how often a watched process's descriptors are counted; its peak of memory the
// kernel keeps.
const sampleInterval = 20 * time.Millisecond

// RSS returns how many bytes of memory a process holds now.
func RSS(pid int) (int64, error) { return status(pid, "VmRSS") }

// PeakRSS returns the most bytes of memory that a process held since its start, or since Watch
// began.
func PeakRSS(pid int) (int64, error) { return status(pid, "VmHWM") }

// status reads a size from /proc/PID/status (man 5 proc).
func status(pid int, field string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read the status of process %d: %w", pid, err)
	}
	for line := range bytes.Lines(text) {
		words := bytes.Fields(line)
		if len(words) < 2 || string(words[0]) != field+":" {
			continue
		}
		kib, err := strconv.ParseInt(string(words[1]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read %s of process %d: %w", field, pid, err)
		}
		return kib << 10, nil
	}
	return 0, fmt.Errorf("process %d has no %s", pid, field)
}

// Descriptors returns how many files and sockets a process has open.
func Descriptors(pid int) (int, error) {
	folder, err := os.Open(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0, fmt.Errorf("look at the descriptors of process %d: %w", pid, err)
	}
	defer folder.Close()
	names, err := folder.Readdirnames(-1)
	if err != nil {
		return 0, fmt.Errorf("count the descriptors of process %d: %w", pid, err)
	}
	return len(names), nil
}

// Seen is what a watched process took.
type Seen struct {
	// RSSBefore is what it held when the watch began, PeakRSS the most it held since, both in
	// bytes.
	RSSBefore, PeakRSS int64
	// DescriptorsBefore is what it had open when the watch began, PeakDescriptors the most seen
	// since.
	DescriptorsBefore, PeakDescriptors int
}

// Grown returns how much memory was taken beside what was held before.
func (s Seen) Grown() int64 { return s.PeakRSS - s.RSSBefore }

// String returns what was seen, for the log of a test.
func (s Seen) String() string {
	return fmt.Sprintf("memory %d to %d MiB, descriptors %d to %d",
		s.RSSBefore/MiB, s.PeakRSS/MiB, s.DescriptorsBefore, s.PeakDescriptors)
}

// Watch follows a process until stop is called, which answers what it took and logs it. It fails
// the test when the process ends meanwhile.
func Watch(t *testing.T, pid int) (stop func() Seen) {
	t.Helper()
	// 5 sets the peak to what is held now (man 5 proc, clear_refs).
	require.NoError(t, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0))
	var seen Seen
	var err error
	seen.RSSBefore, err = RSS(pid)
	require.NoError(t, err)
	seen.DescriptorsBefore, err = Descriptors(pid)
	require.NoError(t, err)
	done := make(chan struct{})
	var sampling sync.WaitGroup
	sampling.Go(func() {
		tick := time.NewTicker(sampleInterval)
		defer tick.Stop()
		for {
			// A process that is gone shows in stop.
			if n, err := Descriptors(pid); err == nil {
				seen.PeakDescriptors = max(seen.PeakDescriptors, n)
			}
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	return sync.OnceValue(func() Seen {
		t.Helper()
		close(done)
		sampling.Wait()
		peak, err := PeakRSS(pid)
		require.NoError(t, err, "the attacked process ended")
		seen.PeakRSS = peak
		t.Logf("process %d: %s", pid, seen)
		return seen
	})
}
