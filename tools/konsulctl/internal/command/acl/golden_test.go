package acl_test

import (
	"testing"

	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

// TestWhatKonsulctlSays compares every answer, in every format, with testdata.
func TestWhatKonsulctlSays(t *testing.T) {
	commandtest.Golden(t, map[string]string{
		"acl-bootstrap":         "acl bootstrap",
		"acl-policy-create":     "acl policy create web --description servers --rule service.write.web --rule kv.read,list.config/**",
		"acl-policy-get":        "acl policy get web",
		"acl-policy-list":       "acl policy list",
		"acl-policy-delete":     "acl policy delete web",
		"acl-policy-update":     "acl policy update web --description new",
		"acl-role-create":       "acl role create engineer --policy web,logs",
		"acl-role-get":          "acl role get engineer",
		"acl-role-list":         "acl role list",
		"acl-role-delete":       "acl role delete engineer",
		"acl-role-update":       "acl role update engineer --policy web",
		"acl-token-create":      "acl token create --policy web --ttl 1h",
		"acl-token-get":         "acl token get " + commandtest.Accessor,
		"acl-token-get-self":    "acl token get --self",
		"acl-token-list":        "acl token list",
		"acl-token-clone":       "acl token clone " + commandtest.Accessor,
		"acl-token-delete":      "acl token delete " + commandtest.Accessor,
		"acl-token-update":      "acl token update " + commandtest.Accessor + " --policy logs,web --never-expires",
		"acl-explain":           "acl explain --token " + commandtest.Accessor + " kv write config/x",
		"acl-explain-denied":    "acl explain kv read config/secret/x",
		"acl-explain-nothing":   "acl explain --token anonymous operator write raft",
		"error-last-management": "acl token delete last",
		"error-rule":            "acl policy create web --rule kv",
	})
}
