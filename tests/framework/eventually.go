package framework

import (
	"testing"
	"time"
)

const pollInterval = 100 * time.Millisecond

// Eventually waits until condition answers nil, and fails the test with its last error after
// timeout.
func Eventually(t *testing.T, timeout time.Duration, what string, condition func() error) {
	t.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("not within %s: %s: %v", timeout, what, err)
		case <-tick.C:
		}
	}
}
