package datacenter_test

import (
	"testing"

	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

// TestWhatKonsulctlSays compares every answer, in every format, with testdata.
func TestWhatKonsulctlSays(t *testing.T) {
	commandtest.Golden(t, map[string]string{
		"datacenter-list":         "datacenter list",
		"datacenter-token-create": "datacenter token create --datacenter asia-pacific",
		"federation-show":         "federation show",
		"error-already-exists":    "datacenter token create --datacenter us-west",
	})
}
