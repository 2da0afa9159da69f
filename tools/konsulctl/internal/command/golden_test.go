package command_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/konsul/konsultest"
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
		"service-instance":         "service instance api-1",
		"service-failover":         "service failover api",
		"node-list":                "node list",
		"node-get":                 "node get web-1",
		"node-register":            "node register web-1 --address 10.0.0.1",
		"node-deregister":          "node deregister web-1",
		"node-heartbeat":           "node heartbeat web-1",
		"check-list":               "check list",
		"check-pass":               "check pass http --instance api-1",
		"check-deregister":         "check deregister disk --node web-1",
		"maintenance-enable":       "maintenance enable --node web-1",
		"maintenance-status":       "maintenance status",
		"error-heartbeat":          "node heartbeat ghost",
		"error-check-of-whom":      "check pass http",
		"kv-get":                   "kv get --datacenter eu-central config/app/version",
		"kv-get-bytes":             "kv get bytes",
		"kv-set":                   "kv set --global config/app/version v2.0",
		"kv-list":                  "kv list config/",
		"kv-list-keys":             "kv list config/ --keys",
		"kv-delete":                "kv delete config/app/version",
		"kv-txn":                   "kv txn --delete-prefix old/",
		"kv-txn-else":              "kv txn --if-held jobs/nightly=7 --set jobs/next=8 --else-get jobs/next --else-get jobs/none",
		"kv-history":               "kv history config/app/version",
		"kv-set-lease":             "kv set --lease l1 --meta owner=web presence/web-1 up",
		"kv-list-separator":        "kv list --keys --separator /",
		"lease-grant":              "lease grant 30s",
		"lease-keep-alive":         "lease keep-alive l1 --once",
		"lease-revoke":             "lease revoke l1",
		"lease-get":                "lease get l1",
		"lease-list":               "lease list",
		"lock-acquire":             "lock acquire jobs/nightly --lease l1 --wait 1m",
		"lock-release":             "lock release jobs/nightly --token 1042",
		"lock-get":                 "lock get jobs/nightly",
		"lock-list":                "lock list jobs/",
		"error-lease-gone":         "lease keep-alive gone --once",
		"error-lock-held":          "lock acquire taken --lease l1",
		"kv-delete-recurse":        "kv delete --recurse config/",
		"cluster-status":           "cluster status",
		"cluster-status-all":       "cluster status --all-datacenters",
		"datacenter-list":          "datacenter list",
		"datacenter-token-create":  "datacenter token create --datacenter asia-pacific",
		"federation-show":          "federation show",
		"acl-bootstrap":            "acl bootstrap",
		"acl-policy-create":        "acl policy create web --description servers --rule service.write.web --rule kv.read,list.config/**",
		"acl-policy-get":           "acl policy get web",
		"acl-policy-list":          "acl policy list",
		"acl-policy-delete":        "acl policy delete web",
		"acl-role-create":          "acl role create engineer --policy web,logs",
		"acl-role-get":             "acl role get engineer",
		"acl-role-list":            "acl role list",
		"acl-role-delete":          "acl role delete engineer",
		"acl-token-create":         "acl token create --policy web --ttl 1h",
		"acl-token-get":            "acl token get " + accessor,
		"acl-token-get-self":       "acl token get --self",
		"acl-token-list":           "acl token list",
		"acl-token-clone":          "acl token clone " + accessor,
		"acl-token-delete":         "acl token delete " + accessor,
		"acl-explain":              "acl explain --token " + accessor + " kv write config/x",
		"acl-explain-denied":       "acl explain kv read config/secret/x",
		"acl-explain-nothing":      "acl explain --token anonymous operator write raft",
		"error-last-management":    "acl token delete last",
		"error-rule":               "acl policy create web --rule kv",
		"error-not-found":          "kv get missing",
		"error-already-exists":     "datacenter token create --datacenter us-west",
		"error-cas":                "kv set --cas 3 k v",
		"error-unknown-flag":       "kv set --globl k v",
		"error-missing-argument":   "kv set k",
		"error-unknown-subcommand": "service gte api",

		"operator-raft-list-peers":          "operator raft list-peers",
		"operator-raft-add-peer":            "operator raft add-peer 10.0.0.4:8502",
		"operator-raft-remove-peer":         "operator raft remove-peer n2",
		"operator-raft-transfer-leadership": "operator raft transfer-leadership n2",
		"operator-autopilot-state":          "operator autopilot state",
		"operator-autopilot-get-config":     "operator autopilot get-config",
		"operator-autopilot-set-config":     "operator autopilot set-config --dead-server-after 1h --min-quorum 5",
		"error-add-peer":                    "operator raft add-peer 10.0.0.9:8502",
		"error-no-setting":                  "operator autopilot set-config",
	} {
		t.Run(name, func(t *testing.T) { says(t, gateway, "testdata", name, line) })
	}
}

// says compares what konsulctl says in every format with a file in a folder.
func says(t *testing.T, gateway *konsultest.Gateway, folder, name, line string) {
	t.Helper()
	var said strings.Builder
	for _, format := range []string{"table", "json", "yaml"} {
		r := ctl(t, gateway, "", append(asArguments(line), "-o", format)...)
		fmt.Fprintf(&said, "$ konsulctl %s -o %s\n%s", line, format, r.stdout)
		if r.stderr != "" {
			fmt.Fprintf(&said, "--- stderr\n%s", r.stderr)
		}
		fmt.Fprintf(&said, "--- exit %d\n\n", r.code)
		if format == "json" {
			require.True(t, r.stdout == "" && r.code != 0 || json.Valid([]byte(r.stdout)), "%s: no JSON: %s", line, r.stdout)
			for note := range strings.Lines(r.stderr) {
				require.True(t, json.Valid([]byte(note)), "%s: no JSON: %s", line, note)
			}
		}
		if strings.HasPrefix(name, "error") {
			break
		}
	}
	path := filepath.Join(folder, name+".golden")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(said.String()), 0o600))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), said.String())
}

// asArguments takes a line apart; in a rule a dot stands for a space.
func asArguments(line string) []string {
	args := strings.Fields(line)
	for i := 1; i < len(args); i++ {
		if args[i-1] == "--rule" {
			args[i] = strings.ReplaceAll(args[i], ".", " ")
		}
	}
	return args
}
