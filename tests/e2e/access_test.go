package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/tests/framework"
)

const teamPolicy = `
description: what the team needs
rules:
  - {resource: kv, prefix: team/, access: [read, write]}
  - {resource: kv, glob: "team/**/secret", access: deny}
  - {resource: service, exact: team-api, access: read}
`

// TestALimitedTokenThroughAllFaces follows a token from its making in a secondary to what it is
// refused there, in the primary and in a third datacenter.
func TestALimitedTokenThroughAllFaces(t *testing.T) {
	lab := framework.StartLab(t, framework.LabOptions{})
	west, central := lab.Access(framework.USWest), lab.Access(framework.EUCentral)
	created := west.CTLInput(t, teamPolicy, "acl", "policy", "create", "team", "--file", "-")
	require.Zero(t, created.Code, created.Stderr)
	retried(t, west, "acl", "role", "create", "developer", "--policy", "team")
	file := filepath.Join(t.TempDir(), "team.token")
	retried(t, west, "acl", "token", "create", "--role", "developer", "--description", "team", "--out", file)
	secret, err := os.ReadFile(file)
	require.NoError(t, err)
	team, far := west, central
	team.Token, far.Token = strings.TrimSpace(string(secret)), strings.TrimSpace(string(secret))
	for _, access := range []framework.Access{team, far} {
		framework.Eventually(t, soon, "the token has come", func() error {
			if r := access.CTL(t, "kv", "list"); r.Code != 0 {
				return fmt.Errorf("exit %d: %s", r.Code, r.Stderr)
			}
			return nil
		})
	}

	// Allowed: here, globally, and in another datacenter.
	team.MustCTL(t, "kv", "set", "team/x", "1")
	team.MustCTL(t, "kv", "set", "--global", "team/g", "2")
	team.MustCTL(t, "kv", "set", "--datacenter", framework.USEast, "team/x", "3")
	west.MustCTL(t, "kv", "set", "other/x", "4")
	require.NotContains(t, team.MustCTL(t, "kv", "list"), "other/x")

	// Refused, by every face in the same words.
	const permission = "kv:write on local/other/x"
	refused := team.CTL(t, "kv", "set", "other/x", "5")
	require.Equal(t, 4, refused.Code, refused.Stderr)
	require.Contains(t, refused.Stderr, permission)
	refused = team.CTL(t, "kv", "set", "--datacenter", framework.EUCentral, "other/x", "5")
	require.Equal(t, 4, refused.Code, refused.Stderr)
	require.Contains(t, refused.Stderr, permission)
	reply := team.REST(t, http.MethodPut, "/api/v1/kv/other/x", []byte("5"), nil)
	require.Equal(t, http.StatusForbidden, reply.Status, "%s", reply.Body)
	var problem struct{ Meta map[string]string }
	require.NoError(t, json.Unmarshal(reply.Body, &problem))
	require.Equal(t, permission, problem.Meta["permission"])
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+team.Token), 20*time.Second)
	defer cancel()
	_, err = registryv1.NewKVServiceClient(edge(t, team)).Set(ctx, &registryv1.SetRequest{Key: "other/x"})
	require.Equal(t, codes.PermissionDenied, status.Code(err))
	require.ErrorContains(t, err, permission)
	for _, line := range [][]string{
		{"service", "get", "billing", "--all-datacenters"},
		{"service", "get", "billing"},
		{"datacenter", "list"},
		{"cluster", "status"},
		{"federation", "show"},
		{"acl", "policy", "list"},
		{"acl", "token", "create", "--management"},
	} {
		require.Equal(t, 4, team.CTL(t, line...).Code, line)
	}
	require.Zero(t, team.CTL(t, "service", "get", "team-api", "--all-datacenters").Code)

	// Why? By accessor id for those who may ask about others, by the secret on standard input, and
	// about oneself.
	var self struct {
		Token struct {
			AccessorID string `json:"accessor_id"`
		}
	}
	require.NoError(t, json.Unmarshal([]byte(team.MustCTL(t, "acl", "token", "get", "--self", "-o", "json")), &self))
	require.NotEmpty(t, self.Token.AccessorID)
	why := west.MustCTL(t, "acl", "explain", "--token", self.Token.AccessorID, "kv", "write", "team/x")
	require.Contains(t, why, "allowed: kv:write on local/team/x")
	require.Contains(t, why, "role developer")
	why = west.CTLInput(t, team.Token+"\n", "acl", "explain", "--token", "-", "kv", "read", "global/team/db/secret").Stdout
	require.Contains(t, why, "denied: kv:read on global/team/db/secret")
	require.Contains(t, why, "kv deny glob:team/**/secret")
	why = team.MustCTL(t, "acl", "explain", "operator", "write", "raft")
	require.Contains(t, why, "no rule allows it")

	// A local token stays where it was made.
	local := west
	local.Token = secretOf(t, west, "acl", "token", "create", "--local", "--policy", "team", "-o", "json")
	local.MustCTL(t, "kv", "set", "team/local", "6")
	abroad := central
	abroad.Token = local.Token
	require.Equal(t, 4, abroad.CTL(t, "kv", "list").Code)

	// Nobody without a token, until the anonymous token has something.
	nobody := http.Header{"Authorization": nil}
	require.Equal(t, http.StatusUnauthorized, west.REST(t, http.MethodGet, "/api/v1/kv/team/x", nil, nobody).Status)
	west.MustCTL(t, "acl", "policy", "create", "public", "--rule", "kv read team/x")
	retried(t, west, "acl", "token", "update", "00000000-0000-0000-0000-000000000002", "--policy", "public")
	framework.Eventually(t, soon, "everybody may read one key", func() error {
		if r := west.REST(t, http.MethodGet, "/api/v1/kv/team/x?raw", nil, nobody); r.Status != http.StatusOK || string(r.Body) != "1" {
			return fmt.Errorf("%d: %s", r.Status, r.Body)
		}
		return nil
	})
	require.Equal(t, http.StatusForbidden, west.REST(t, http.MethodGet, "/api/v1/kv/other/x", nil, nobody).Status)
	again := west.CTL(t, "acl", "bootstrap")
	require.Contains(t, again.Stderr, "acl-bootstrap-reset", "refused, with the way out")

	// Revoked, it is worth nothing within the time gateways believe a token.
	west.MustCTL(t, "acl", "token", "delete", self.Token.AccessorID)
	framework.Eventually(t, soon, "the token is gone", func() error {
		if r := far.CTL(t, "kv", "list"); r.Code != 4 {
			return fmt.Errorf("exit %d", r.Code)
		}
		return nil
	})

	// The log knows, and keeps no secrets.
	log := auditLogs(t, lab.Dir)
	require.Contains(t, log, permission)
	require.Contains(t, log, "acl:write on policy/team")
	for _, token := range []string{team.Token, west.Token, local.Token} {
		require.NotContains(t, log, token)
	}
}

// retried runs a command that names what was just made in the primary, until its copy has come.
func retried(t *testing.T, access framework.Access, args ...string) {
	t.Helper()
	framework.Eventually(t, soon, strings.Join(args, " "), func() error {
		if r := access.CTL(t, args...); r.Code != 0 {
			return fmt.Errorf("exit %d: %s", r.Code, r.Stderr)
		}
		return nil
	})
}

func secretOf(t *testing.T, access framework.Access, args ...string) string {
	t.Helper()
	var made struct{ Secret string }
	require.NoError(t, json.Unmarshal([]byte(access.MustCTL(t, args...)), &made))
	require.NotEmpty(t, made.Secret)
	return made.Secret
}

func auditLogs(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Name() != "audit.log" && entry.Name() != "audit-denied.log" {
			return err
		}
		text, err := os.ReadFile(path)
		all.Write(text)
		return err
	}))
	return all.String()
}
