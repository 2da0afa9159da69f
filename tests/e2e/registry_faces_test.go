package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/tests/framework"
)

// What one face writes the other reads: transactions, batches, leases, locks, nodes, checks and
// blocking reads.
func TestTheRegistryThroughRESTAndKonsulctl(t *testing.T) {
	lab := framework.StartLab(t, framework.LabOptions{})
	f := faces{lab.Access(framework.USWest)}
	t.Run("transactions", f.transactions)
	t.Run("batches", f.batches)
	t.Run("folders and histories", f.foldersAndHistories)
	t.Run("leases", f.leases)
	t.Run("locks", f.locks)
	t.Run("nodes and their liveness", f.nodes)
	t.Run("checks and maintenance", f.checks)
	t.Run("blocking reads", f.blocking)
	t.Run("roles and tokens", f.rolesAndTokens)
	t.Run("failover policies", f.failoverPolicies)
	t.Run("operating", f.operating)
}

type faces struct{ framework.Access }

// call makes a REST call with a JSON body (or none) and reads its answer into answer.
func (f faces) call(t *testing.T, method, path, body string, answer proto.Message) {
	t.Helper()
	reply := f.REST(t, method, path, []byte(body), http.Header{"Content-Type": {"application/json"}})
	require.Equal(t, http.StatusOK, reply.Status, "%s %s: %s", method, path, reply.Body)
	require.NoError(t, protojson.Unmarshal(reply.Body, answer), "%s", reply.Body)
}

// refused makes a REST call that fails, and returns what was said.
func (f faces) refused(t *testing.T, status int, method, path, body string) string {
	t.Helper()
	reply := f.REST(t, method, path, []byte(body), http.Header{"Content-Type": {"application/json"}})
	require.Equal(t, status, reply.Status, "%s %s: %s", method, path, reply.Body)
	return string(reply.Body)
}

func (f faces) value(t *testing.T, key string) string {
	t.Helper()
	return strings.TrimSuffix(f.MustCTL(t, "kv", "get", "--raw", key), "\n")
}

// names returns what each item is called.
func names[T any](items []T, name func(T) string) []string {
	var out []string
	for _, item := range items {
		out = append(out, name(item))
	}
	return out
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func (f faces) transactions(t *testing.T) {
	txn := fmt.Sprintf(`{"compare":[{"key":"txn/a","exists":false}],
		"success":[{"set":{"key":"txn/a","value":%q}},{"set":{"key":"txn/b","value":%q}}],
		"failure":[{"get":{"key":"txn/a"}}]}`, b64("one"), b64("two"))
	first := &registryv1.TxnResponse{}
	f.call(t, http.MethodPost, "/api/v1/txn", txn, first)
	require.True(t, first.GetSucceeded())
	require.Equal(t, "one", f.value(t, "txn/a"))
	require.Equal(t, "two", f.value(t, "txn/b"))

	second := &registryv1.TxnResponse{}
	f.call(t, http.MethodPost, "/api/v1/txn", txn, second)
	require.False(t, second.GetSucceeded(), "the key is there by now")
	require.Equal(t, "one", string(second.GetResults()[0].GetEntry().GetValue()))

	once := `{"requestId":"faces-once","success":[{"set":{"key":"txn/c","value":%q}}]}`
	made, again := &registryv1.TxnResponse{}, &registryv1.TxnResponse{}
	f.call(t, http.MethodPost, "/api/v1/txn", fmt.Sprintf(once, b64("one")), made)
	f.call(t, http.MethodPost, "/api/v1/txn", fmt.Sprintf(once, b64("one")), again)
	require.Equal(t, made.GetMeta().GetIndex(), again.GetMeta().GetIndex())
	require.Contains(t, f.refused(t, http.StatusConflict, http.MethodPost, "/api/v1/txn", fmt.Sprintf(once, b64("two"))), "REQUEST_ID_REUSED")
	require.Equal(t, "one", f.value(t, "txn/c"))

	for _, write := range [][]string{
		{"kv", "set", "txn/d", "one"},
		{"kv", "txn", "--set", "txn/d=two"},
		{"kv", "delete", "txn/d"},
		{"lease", "grant", "30s", "--id", "faces-once"},
		{"lease", "revoke", "faces-once"},
		{"node", "register", "faces-once", "--address", "10.0.0.9"},
		{"maintenance", "enable", "--node", "faces-once"},
		{"maintenance", "disable", "--node", "faces-once"},
		{"service", "register", "--name", "faces-once", "--address", "10.0.0.9", "--check", "http=critical"},
		{"check", "pass", "http", "--instance", "faces-once"},
		{"check", "deregister", "http", "--instance", "faces-once"},
		{"service", "deregister", "faces-once"},
		{"node", "deregister", "faces-once"},
		{"acl", "policy", "create", "faces-once", "--rule", "kv read"},
		{"acl", "policy", "update", "faces-once", "--description", "once"},
		{"acl", "role", "create", "faces-once", "--policy", "faces-once"},
		{"acl", "role", "delete", "faces-once"},
		{"acl", "policy", "delete", "faces-once"},
		{"operator", "autopilot", "set-config", "--max-trailing-logs", "500"},
	} {
		line := slices.Concat(write, []string{"--request-id", "faces-" + strings.Join(write[:3], "-"), "-o", "json"})
		did, repeated := f.CTL(t, line...), f.CTL(t, line...)
		require.Zero(t, did.Code, did.Stderr)
		require.Equal(t, did.Stdout, repeated.Stdout, "done once, answered twice")
	}
	other := f.CTL(t, "kv", "set", "--request-id", "faces-kv-set-txn/d", "txn/d", "three")
	require.NotZero(t, other.Code)
	require.Contains(t, other.Stderr, "was used for something else")
	f.refused(t, http.StatusNotFound, http.MethodGet, "/api/v1/kv/txn/d", "")

	input := `{"compare":[{"key":"txn/a","version":"1"}],"success":[{"deletePrefix":{"key":"txn/"}}]}`
	out := f.CTLInput(t, input, "kv", "txn", "--file", "-", "-o", "json")
	require.Zero(t, out.Code, out.Stderr)
	f.refused(t, http.StatusNotFound, http.MethodGet, "/api/v1/kv/txn/b", "")
	require.Contains(t, f.refused(t, http.StatusBadRequest, http.MethodPost, "/api/v1/txn", `{"success":[{}]}`), "success[0]")
}

func (f faces) batches(t *testing.T) {
	answer := &registryv1.BatchResponse{}
	f.call(t, http.MethodPost, "/api/v1/kv-batch", fmt.Sprintf(`{"operations":[
		{"set":{"key":"batch/a","value":%q}},{"get":{"key":"batch/none"}}]}`, b64("x")), answer)
	require.Len(t, answer.GetResults(), 2)
	require.Equal(t, "batch/a", answer.GetResults()[0].GetSet().GetEntry().GetKey())
	require.Contains(t, answer.GetResults()[1].GetStatus().GetMessage(), "batch/none", "one failure is not the others'")
	require.Equal(t, "x", f.value(t, "batch/a"))
}

func (f faces) foldersAndHistories(t *testing.T) {
	for i, key := range []string{"tree/a/1", "tree/a/2", "tree/b", "tree/b"} {
		f.MustCTL(t, "kv", "set", key, fmt.Sprint("v", i))
	}
	list := &registryv1.ListResponse{}
	f.call(t, http.MethodGet, "/api/v1/kv?prefix=tree/&separator=/&keys_only=true", "", list)
	require.Equal(t, []string{"tree/a/"}, list.GetFolders())
	require.Len(t, list.GetEntries(), 1)
	require.Empty(t, list.GetEntries()[0].GetValue())

	history := &registryv1.HistoryResponse{}
	f.call(t, http.MethodGet, "/api/v1/kv-history/tree/b", "", history)
	require.Len(t, history.GetVersions(), 2)
	require.Contains(t, f.MustCTL(t, "kv", "history", "tree/b"), "v2")
	before := history.GetVersions()[1].GetEntry().GetModifyIndex()
	then := &registryv1.GetResponse{}
	f.call(t, http.MethodGet, fmt.Sprintf("/api/v1/kv/tree/b?at_index=%d", before), "", then)
	require.Equal(t, "v2", string(then.GetEntry().GetValue()))

	deleted := &registryv1.DeleteResponse{}
	f.call(t, http.MethodDelete, "/api/v1/kv/tree/?recurse=true", "", deleted)
	require.EqualValues(t, 3, deleted.GetDeleted())
	require.NotContains(t, f.MustCTL(t, "kv", "list", "tree/"), "tree/b")
}

func (f faces) leases(t *testing.T) {
	granted := &registryv1.GrantLeaseResponse{}
	f.call(t, http.MethodPost, "/api/v1/lease", `{"name":"leases/session","ttl":"60s"}`, granted)
	id := granted.GetLease().GetId()
	f.MustCTL(t, "kv", "set", "leases/mine", "here", "--lease", id)
	require.Contains(t, f.MustCTL(t, "lease", "get", id), "leases/mine")
	kept := &registryv1.KeepLeaseAliveResponse{}
	f.call(t, http.MethodPost, "/api/v1/lease/"+id+"/keep-alive", "{}", kept)
	require.EqualValues(t, 60, kept.GetTtl().GetSeconds())
	one, all := &registryv1.GetLeaseResponse{}, &registryv1.ListLeasesResponse{}
	f.call(t, http.MethodGet, "/api/v1/lease/"+id, "", one)
	require.Equal(t, []string{"leases/mine"}, one.GetKeys())
	f.call(t, http.MethodGet, "/api/v1/lease", "", all)
	require.Equal(t, id, all.GetLeases()[0].GetId())
	f.call(t, http.MethodDelete, "/api/v1/lease/"+id, "", &registryv1.RevokeLeaseResponse{})
	require.NotZero(t, f.CTL(t, "kv", "get", "leases/mine").Code, "it ends with its lease")
	f.refused(t, http.StatusNotFound, http.MethodPost, "/api/v1/lease/"+id+"/keep-alive", "{}")

	f.MustCTL(t, "lease", "grant", "1s", "--id", "short", "--name", "leases/short")
	f.MustCTL(t, "kv", "set", "leases/brief", "here", "--lease", "short")
	framework.Eventually(t, soon, "the lease ends by itself", func() error {
		if reply := f.REST(t, http.MethodGet, "/api/v1/kv/leases/brief", nil, nil); reply.Status != http.StatusNotFound {
			return fmt.Errorf("status %d", reply.Status)
		}
		return nil
	})
}

func (f faces) locks(t *testing.T) {
	f.MustCTL(t, "lease", "grant", "60s", "--id", "holder", "--name", "locks/holder")
	f.MustCTL(t, "lease", "grant", "60s", "--id", "other", "--name", "locks/other")
	first := &registryv1.AcquireLockResponse{}
	f.call(t, http.MethodPost, "/api/v1/lock-acquire/locks/nightly", `{"lease":"holder","holder":"worker 1"}`, first)
	token := first.GetLock().GetToken()
	require.Contains(t, f.MustCTL(t, "lock", "get", "locks/nightly"), "worker 1")
	require.Contains(t, f.refused(t, http.StatusConflict, http.MethodPost, "/api/v1/lock-acquire/locks/nightly", `{"lease":"other"}`), "LOCK_HELD")

	fenced := func(value string) *registryv1.BatchResult {
		answer := &registryv1.BatchResponse{}
		f.call(t, http.MethodPost, "/api/v1/kv-batch", fmt.Sprintf(`{"operations":[{"set":{"key":"locks/state","value":%q,"fence":{"lock":"locks/nightly","token":"%d"}}}]}`, b64(value), token), answer)
		return answer.GetResults()[0]
	}
	require.NotNil(t, fenced("guarded").GetSet())
	f.call(t, http.MethodPost, "/api/v1/lock-release/locks/nightly", fmt.Sprintf(`{"token":"%d"}`, token), &registryv1.ReleaseLockResponse{})
	second := &registryv1.AcquireLockResponse{}
	f.call(t, http.MethodPost, "/api/v1/lock-acquire/locks/nightly", `{"lease":"other"}`, second)
	require.Greater(t, second.GetLock().GetToken(), token)
	require.NotNil(t, fenced("stale").GetStatus(), "a holder that is late is kept out by its token")
	require.Equal(t, "guarded", f.value(t, "locks/state"))

	locks := &registryv1.ListLocksResponse{}
	f.call(t, http.MethodGet, "/api/v1/lock?prefix=locks/", "", locks)
	require.Len(t, locks.GetLocks(), 1)
	f.MustCTL(t, "lock", "release", "locks/nightly", "--token", fmt.Sprint(second.GetLock().GetToken()))
	f.refused(t, http.StatusNotFound, http.MethodGet, "/api/v1/lock/locks/nightly", "")
}

func (f faces) nodes(t *testing.T) {
	f.call(t, http.MethodPut, "/api/v1/catalog/nodes", `{"node":{"name":"faces-1","address":"127.0.0.1","livenessTtl":"2s","meta":{"rack":"r1"}},
		"services":[{"service":{"id":"faces-a","name":"faces-web","port":80,"tags":["blue"]}},{"service":{"id":"faces-b","name":"faces-web","port":81}}]}`, &registryv1.RegisterNodeResponse{})
	require.Contains(t, f.MustCTL(t, "node", "get", "faces-1"), "faces-b")
	beat := &registryv1.HeartbeatResponse{}
	f.call(t, http.MethodPut, "/api/v1/catalog/heartbeats", `{"nodes":["faces-1","faces-none"]}`, beat)
	require.Equal(t, []string{"faces-none"}, beat.GetUnknown())
	framework.Eventually(t, soon, "a node without heartbeats is critical", func() error {
		node := &registryv1.GetNodeResponse{}
		f.call(t, http.MethodGet, "/api/v1/catalog/nodes/faces-1", "", node)
		if node.GetStatus() != registryv1.HealthStatus_HEALTH_STATUS_CRITICAL {
			return fmt.Errorf("is %s", node.GetStatus())
		}
		return nil
	})
	nodes := &registryv1.ListNodesResponse{}
	f.call(t, http.MethodGet, "/api/v1/catalog/nodes", "", nodes)
	require.Contains(t, names(nodes.GetNodes(), (*registryv1.Node).GetName), "faces-1")
	f.MustCTL(t, "node", "heartbeat", "faces-1")
	blue := &registryv1.QueryServiceResponse{}
	f.call(t, http.MethodGet, "/api/v1/health/services/faces-web?passing_only=true&tags=blue", "", blue)
	require.Len(t, blue.GetInstances(), 1)
	f.call(t, http.MethodGet, "/api/v1/health/services/faces-web?filter="+`%22blue%22+not+in+Service.Tags`, "", blue)
	require.Len(t, blue.GetInstances(), 1)
	f.call(t, http.MethodDelete, "/api/v1/catalog/nodes/faces-1", "", &registryv1.DeregisterNodeResponse{})
	require.NotZero(t, f.CTL(t, "node", "get", "faces-1").Code)
}

func (f faces) checks(t *testing.T) {
	f.MustCTL(t, "service", "register", "--name", "faces-db", "--id", "faces-db-1", "--address", "127.0.0.1", "--port", "5432")
	passing := func() int {
		answer := &registryv1.QueryServiceResponse{}
		f.call(t, http.MethodGet, "/api/v1/health/services/faces-db?passing_only=true", "", answer)
		return len(answer.GetInstances())
	}
	require.Equal(t, 1, passing())
	f.call(t, http.MethodPut, "/api/v1/catalog/services", `{"node":{"name":"faces-2","address":"127.0.0.2"},
		"service":{"id":"faces-db-2","name":"faces-db","node":"faces-2","port":5433},"checks":[{"id":"alive","serviceId":"faces-db-2","ttl":"60s"}]}`, &registryv1.RegisterResponse{})
	f.call(t, http.MethodPut, "/api/v1/health/checks", `{"updates":[{"serviceId":"faces-db-2","checkId":"alive","status":"HEALTH_STATUS_WARNING","output":"slow"}]}`, &registryv1.UpdateChecksResponse{})
	instance, checks := &registryv1.GetServiceResponse{}, &registryv1.ListChecksResponse{}
	f.call(t, http.MethodGet, "/api/v1/catalog/instances/faces-db-2", "", instance)
	require.Equal(t, "slow", instance.GetInstance().GetChecks()[0].GetOutput())
	f.call(t, http.MethodGet, "/api/v1/health/checks", "", checks)
	require.Contains(t, names(checks.GetChecks(), func(c *registryv1.CheckSummary) string { return c.GetCheck().GetOutput() }), "slow")
	require.Contains(t, f.MustCTL(t, "check", "list"), "slow")
	f.call(t, http.MethodDelete, "/api/v1/health/checks/alive?service_id=faces-db-2", "", &registryv1.DeregisterCheckResponse{})
	require.NotContains(t, f.MustCTL(t, "check", "list"), "slow")
	f.MustCTL(t, "service", "deregister", "faces-db-2")
	f.call(t, http.MethodPut, "/api/v1/catalog/maintenance", `{"serviceId":"faces-db-1","enabled":true,"reason":"a new disk"}`, &registryv1.SetMaintenanceResponse{})
	require.Contains(t, f.MustCTL(t, "maintenance", "status"), "a new disk")
	require.Zero(t, passing())
	f.MustCTL(t, "maintenance", "disable", "--instance", "faces-db-1")
	require.Equal(t, 1, passing())
}

func (f faces) blocking(t *testing.T) {
	f.MustCTL(t, "kv", "set", "blocking/key", "before")
	now := &registryv1.GetResponse{}
	f.call(t, http.MethodGet, "/api/v1/kv/blocking/key", "", now)
	answered := make(chan framework.Reply, 1)
	go func() {
		answered <- f.REST(t, http.MethodGet, fmt.Sprintf("/api/v1/kv/blocking/key?index=%d&wait=20s", now.GetEntry().GetModifyIndex()), nil, nil)
	}()
	f.MustCTL(t, "kv", "set", "blocking/other", "wakes nobody")
	select {
	case reply := <-answered:
		t.Fatalf("answered without a change: %s", reply.Body)
	default:
	}
	f.MustCTL(t, "kv", "set", "blocking/key", "after")
	reply := <-answered
	require.Equal(t, http.StatusOK, reply.Status, "%s", reply.Body)
	var entry struct{ Entry struct{ Value string } }
	require.NoError(t, json.Unmarshal(reply.Body, &entry))
	require.Equal(t, b64("after"), entry.Entry.Value)
}

func (f faces) rolesAndTokens(t *testing.T) {
	f.refused(t, http.StatusBadRequest, http.MethodPost, "/api/v1/acl/bootstrap", `{}`)
	f.call(t, http.MethodPost, "/api/v1/acl/policies", `{"name":"faces","rules":[{"resource":"kv","prefix":"team/","access":["read"]}]}`, &registryv1.CreatePolicyResponse{})
	require.Contains(t, f.MustCTL(t, "acl", "policy", "get", "faces"), "team/")
	f.call(t, http.MethodPut, "/api/v1/acl/policies/faces", `{"rules":[{"resource":"kv","prefix":"team/","access":["read"]},{"resource":"kv","glob":"team/**/secret","access":["deny"]}]}`, &registryv1.UpdatePolicyResponse{})
	policies := &registryv1.ListPoliciesResponse{}
	f.call(t, http.MethodGet, "/api/v1/acl/policies", "", policies)
	require.Contains(t, names(policies.GetPolicies(), (*registryv1.ACLPolicy).GetName), "faces")
	f.call(t, http.MethodPost, "/api/v1/acl/roles", `{"name":"faces","policies":["faces"]}`, &registryv1.CreateRoleResponse{})
	f.call(t, http.MethodPut, "/api/v1/acl/roles/faces", `{"description":"of REST","policies":["faces"]}`, &registryv1.UpdateRoleResponse{})
	require.Contains(t, f.MustCTL(t, "acl", "role", "get", "faces"), "of REST")
	role, roles := &registryv1.GetRoleResponse{}, &registryv1.ListRolesResponse{}
	f.call(t, http.MethodGet, "/api/v1/acl/roles/faces", "", role)
	require.Equal(t, []string{"faces"}, role.GetRole().GetPolicies())
	f.call(t, http.MethodGet, "/api/v1/acl/roles", "", roles)
	require.NotEmpty(t, roles.GetRoles())

	made := &registryv1.CreateTokenResponse{}
	f.call(t, http.MethodPost, "/api/v1/acl/tokens", `{"roles":["faces"],"local":true}`, made)
	at := "/api/v1/acl/tokens/" + made.GetToken().GetAccessorId()
	f.call(t, http.MethodPut, at, `{"description":"changed","roles":["faces"]}`, &registryv1.UpdateTokenResponse{})
	got := &registryv1.GetTokenResponse{}
	f.call(t, http.MethodGet, at, "", got)
	require.Equal(t, "changed", got.GetToken().GetDescription())
	clone := &registryv1.CloneTokenResponse{}
	f.call(t, http.MethodPost, at+"/clone", `{"description":"another"}`, clone)
	require.NotEqual(t, made.GetSecret(), clone.GetSecret())
	require.Contains(t, f.MustCTL(t, "acl", "token", "get", clone.GetToken().GetAccessorId()), "another")

	limited := f
	limited.Token = clone.GetSecret()
	limited.refused(t, http.StatusForbidden, http.MethodPut, "/api/v1/kv/team/a/secret", `"dmFsdWU="`)
	why := &registryv1.ExplainResponse{}
	f.call(t, http.MethodPost, "/api/v1/acl/explain", fmt.Sprintf(`{"secret":%q,"resource":"kv","access":"write","name":"team/a/secret"}`, clone.GetSecret()), why)
	require.False(t, why.GetAllowed())
	require.Equal(t, "faces", why.GetMatches()[0].GetPolicy())

	f.call(t, http.MethodDelete, at, "", &registryv1.DeleteTokenResponse{})
	f.refused(t, http.StatusNotFound, http.MethodGet, at, "")
	f.MustCTL(t, "acl", "token", "delete", clone.GetToken().GetAccessorId())
	f.call(t, http.MethodDelete, "/api/v1/acl/roles/faces", "", &registryv1.DeleteRoleResponse{})
	require.NotContains(t, f.MustCTL(t, "acl", "role", "list"), "faces")
	f.call(t, http.MethodDelete, "/api/v1/acl/policies/faces", "", &registryv1.DeletePolicyResponse{})
	require.NotContains(t, f.MustCTL(t, "acl", "policy", "list"), "faces")
}

func (f faces) failoverPolicies(t *testing.T) {
	f.call(t, http.MethodPut, "/api/v1/failover-policies/faces", `{"failover":[{"datacenter":"us-east"},{"datacenter":"eu-central","targets":2}]}`, &registryv1.SetFailoverPolicyResponse{})
	require.Regexp(t, `2 +eu-central +2 instances`, f.MustCTL(t, "service", "failover", "faces"))
	got := &registryv1.GetFailoverPolicyResponse{}
	f.call(t, http.MethodGet, "/api/v1/failover-policies/faces", "", got)
	require.Equal(t, "us-east", got.GetPolicy().GetFailover()[0].GetDatacenter())

	f.MustCTL(t, "service", "register", "--name", "faces-gone", "--address", "10.9.0.9", "--port", "80")
	f.call(t, http.MethodDelete, "/api/v1/catalog/services/faces-gone", "", &registryv1.DeregisterResponse{})
	f.refused(t, http.StatusNotFound, http.MethodDelete, "/api/v1/catalog/services/faces-gone", "")
}

func (f faces) operating(t *testing.T) {
	before, after := &registryv1.GetAutopilotConfigResponse{}, &registryv1.SetAutopilotConfigResponse{}
	f.call(t, http.MethodGet, "/api/v1/operator/autopilot/config", "", before)
	f.call(t, http.MethodPatch, "/api/v1/operator/autopilot/config", `{"config":{"maxTrailingLogs":"777"}}`, after)
	require.EqualValues(t, 777, after.GetConfig().GetMaxTrailingLogs())
	require.Equal(t, before.GetConfig().GetMinQuorum(), after.GetConfig().GetMinQuorum(), "what the request leaves out stays")
	require.Contains(t, f.MustCTL(t, "operator", "autopilot", "get-config"), "777")
	peers := &registryv1.ClusterStatusResponse{}
	f.call(t, http.MethodGet, "/api/v1/operator/raft/peers", "", peers)
	require.NotEmpty(t, peers.GetServers())
	require.Contains(t, f.refused(t, http.StatusBadRequest, http.MethodPost, "/api/v1/operator/raft/peers", `{"address":"127.0.0.1:1"}`), "NO_SERVER_THERE")
	f.call(t, http.MethodGet, "/api/v1/backups", "", &registryv1.ListBackupsResponse{})
	roots := &cav1.GetTrustBundleResponse{}
	f.call(t, http.MethodGet, "/api/v1/ca/roots", "", roots)
	require.NotEmpty(t, roots.GetRoots())
	require.Contains(t, f.refused(t, http.StatusBadRequest, http.MethodPost, "/api/v1/ca/join-tokens", `{"datacenter":"faces"}`), "NOT_PRIMARY")
	state := &registryv1.GetAutopilotStateResponse{}
	f.call(t, http.MethodGet, "/api/v1/operator/autopilot/state", "", state)
	require.Len(t, state.GetServers(), 1)
	require.Contains(t, f.refused(t, http.StatusBadRequest, http.MethodPost, "/api/v1/operator/raft/transfer-leadership", `{}`), "NO_SUCCESSOR")
}
