package check_test

import (
	"testing"

	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

// TestWhatKonsulctlSays compares every answer, in every format, with testdata.
func TestWhatKonsulctlSays(t *testing.T) {
	commandtest.Golden(t, map[string]string{
		"check-list":          "check list",
		"check-pass":          "check pass http --instance api-1",
		"check-deregister":    "check deregister disk --node web-1",
		"maintenance-enable":  "maintenance enable --node web-1",
		"maintenance-status":  "maintenance status",
		"error-check-of-whom": "check pass http",
	})
}
