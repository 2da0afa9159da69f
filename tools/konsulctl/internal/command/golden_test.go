package command_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write what konsulctl says to testdata")

// TestWhatKonsulctlSays compares every answer, in every format, with testdata.
func TestWhatKonsulctlSays(t *testing.T) {
	gateway := federation(t)
	for name, line := range map[string]string{
		"service-get":              "service get api",
		"service-get-all-status":   "service get api --all-status",
		"service-get-none":         "service get nothing",
		"service-get-everywhere":   "service get api --all-datacenters",
		"service-get-failover":     "service get api --failover us-west,eu-central",
		"service-get-nobody":       "service get nowhere --all-datacenters",
		"service-list":             "service list",
		"service-register":         "service register --name api --address 10.0.0.5 --port 8080",
		"service-deregister":       "service deregister api",
		"kv-get":                   "kv get --datacenter eu-central config/app/version",
		"kv-get-bytes":             "kv get bytes",
		"kv-set":                   "kv set --global config/app/version v2.0",
		"kv-list":                  "kv list config/",
		"kv-list-keys":             "kv list config/ --keys",
		"kv-delete":                "kv delete config/app/version",
		"kv-delete-recurse":        "kv delete --recurse config/",
		"cluster-status":           "cluster status",
		"cluster-status-all":       "cluster status --all-datacenters",
		"datacenter-list":          "datacenter list",
		"datacenter-token-create":  "datacenter token create --datacenter asia-pacific",
		"federation-show":          "federation show",
		"error-not-found":          "kv get missing",
		"error-already-exists":     "datacenter token create --datacenter us-west",
		"error-cas":                "kv set --cas 3 k v",
		"error-unknown-flag":       "kv set --globl k v",
		"error-missing-argument":   "kv set k",
		"error-unknown-subcommand": "service gte api",
	} {
		t.Run(name, func(t *testing.T) {
			var said strings.Builder
			for _, format := range []string{"table", "json", "yaml"} {
				r := ctl(t, gateway, "", append(strings.Fields(line), "-o", format)...)
				fmt.Fprintf(&said, "$ konsulctl %s -o %s\n%s", line, format, r.stdout)
				if r.stderr != "" {
					fmt.Fprintf(&said, "--- stderr\n%s", r.stderr)
				}
				fmt.Fprintf(&said, "--- exit %d\n\n", r.code)
				if strings.HasPrefix(name, "error") {
					break
				}
			}
			path := filepath.Join("testdata", name+".golden")
			if *update {
				require.NoError(t, os.WriteFile(path, []byte(said.String()), 0o600))
			}
			want, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, string(want), said.String())
		})
	}
}
