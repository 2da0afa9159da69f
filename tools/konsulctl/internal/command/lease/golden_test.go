package lease_test

import (
	"testing"

	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

// TestWhatKonsulctlSays compares every answer, in every format, with testdata.
func TestWhatKonsulctlSays(t *testing.T) {
	commandtest.Golden(t, map[string]string{
		"lease-grant":      "lease grant 30s",
		"lease-keep-alive": "lease keep-alive l1 --once",
		"lease-revoke":     "lease revoke l1",
		"lease-get":        "lease get l1",
		"lease-list":       "lease list",
		"error-lease-gone": "lease keep-alive gone --once",
	})
}
