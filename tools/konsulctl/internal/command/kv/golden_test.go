package kv_test

import (
	"testing"

	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

// TestWhatKonsulctlSays compares every answer, in every format, with testdata.
func TestWhatKonsulctlSays(t *testing.T) {
	commandtest.Golden(t, map[string]string{
		"kv-get":                 "kv get --datacenter eu-central config/app/version",
		"kv-get-bytes":           "kv get bytes",
		"kv-set":                 "kv set --global config/app/version v2.0",
		"kv-list":                "kv list config/",
		"kv-list-keys":           "kv list config/ --keys",
		"kv-delete":              "kv delete config/app/version",
		"kv-txn":                 "kv txn --delete-prefix old/",
		"kv-txn-else":            "kv txn --if-held jobs/nightly=7 --set jobs/next=8 --else-get jobs/next --else-get jobs/none",
		"kv-history":             "kv history config/app/version",
		"kv-set-lease":           "kv set --lease l1 --meta owner=web presence/web-1 up",
		"kv-list-separator":      "kv list --keys --separator /",
		"kv-delete-recurse":      "kv delete --recurse config/",
		"error-not-found":        "kv get missing",
		"error-cas":              "kv set --cas 3 k v",
		"error-unknown-flag":     "kv set --globl k v",
		"error-missing-argument": "kv set k",
	})
}
