package node_test

import (
	"testing"

	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

// TestWhatKonsulctlSays compares every answer, in every format, with testdata.
func TestWhatKonsulctlSays(t *testing.T) {
	commandtest.Golden(t, map[string]string{
		"node-list":       "node list",
		"node-get":        "node get web-1",
		"node-register":   "node register web-1 --address 10.0.0.1",
		"node-deregister": "node deregister web-1",
		"node-heartbeat":  "node heartbeat web-1",
		"error-heartbeat": "node heartbeat ghost",
	})
}
