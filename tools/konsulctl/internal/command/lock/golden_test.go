package lock_test

import (
	"testing"

	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

// TestWhatKonsulctlSays compares every answer, in every format, with testdata.
func TestWhatKonsulctlSays(t *testing.T) {
	commandtest.Golden(t, map[string]string{
		"lock-acquire":    "lock acquire jobs/nightly --lease l1 --wait 1m",
		"lock-release":    "lock release jobs/nightly --token 1042",
		"lock-get":        "lock get jobs/nightly",
		"lock-list":       "lock list jobs/",
		"error-lock-held": "lock acquire taken --lease l1",
	})
}
