package cluster_test

import (
	"testing"

	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

// TestWhatKonsulctlSays compares every answer, in every format, with testdata.
func TestWhatKonsulctlSays(t *testing.T) {
	commandtest.Golden(t, map[string]string{
		"cluster-status":                    "cluster status",
		"cluster-status-all":                "cluster status --all-datacenters",
		"operator-raft-list-peers":          "operator raft list-peers",
		"operator-raft-add-peer":            "operator raft add-peer 10.0.0.4:8502",
		"operator-raft-remove-peer":         "operator raft remove-peer n2",
		"operator-raft-transfer-leadership": "operator raft transfer-leadership n2",
		"operator-autopilot-state":          "operator autopilot state",
		"operator-autopilot-get-config":     "operator autopilot get-config",
		"operator-autopilot-set-config":     "operator autopilot set-config --dead-server-after 1h --min-quorum 5",
		"error-add-peer":                    "operator raft add-peer 10.0.0.9:8502",
		"error-no-setting":                  "operator autopilot set-config",
	})
}
