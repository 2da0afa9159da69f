package registry_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/registrytest"
)

// aclRule reads "kv config/ read,write": resource, prefix, access.
func aclRule(text string) *registryv1.ACLRule {
	part := strings.Fields(text)
	return &registryv1.ACLRule{Resource: part[0], Match: &registryv1.ACLRule_Prefix{Prefix: strings.Trim(part[1], "^")}, Access: strings.Split(part[2], ",")}
}

func makePolicy(t *testing.T, c *registrytest.Client, name string, rules ...string) {
	t.Helper()
	p := &registryv1.ACLPolicy{Name: name}
	for _, text := range rules {
		p.Rules = append(p.Rules, aclRule(text))
	}
	_, err := c.ACL.CreatePolicy(c.Ctx(), &registryv1.CreatePolicyRequest{Policy: p})
	require.NoError(t, err)
}

// limited makes a token with one policy of the given rules.
func limited(t *testing.T, c *registrytest.Client, name string, rules ...string) *registryv1.CreateTokenResponse {
	t.Helper()
	makePolicy(t, c, name, rules...)
	made, err := c.ACL.CreateToken(c.Ctx(), &registryv1.CreateTokenRequest{Description: name, Policies: []string{name}})
	require.NoError(t, err)
	return made
}

func requireLacks(t *testing.T, err error, permission string) {
	t.Helper()
	require.Equal(t, fault.PermissionDenied, fault.CodeOf(err), "%v", err)
	f, _ := fault.As(err)
	require.Equal(t, permission, f.Meta()["permission"])
	require.Contains(t, f.Message(), permission)
}

func TestALimitedTokenOnEveryServer(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	admin := c.Client(c.Servers[0])
	made := limited(t, admin, "web", "kv config/ read", "kv scratch/ write", "service web write", "node n1 write")
	require.NotEmpty(t, made.GetSecret())
	require.Len(t, strings.Split(made.GetToken().GetAccessorId(), "-"), 5)
	set(t, admin, "config/a", "1")
	set(t, admin, "global/config/a", "2")
	set(t, admin, "private/a", "3")
	register(t, admin, "n1", "web-1", "web")
	register(t, admin, "n2", "db-1", "db")
	for _, s := range c.Servers {
		cl := c.Client(s)
		c.Eventually(func() error {
			_, err := cl.KV.Get(cl.As(made.GetSecret()), &registryv1.GetRequest{Key: "config/a"})
			return err
		})
		_, err := cl.KV.Get(cl.As(made.GetSecret()), &registryv1.GetRequest{Key: "private/a"})
		requireLacks(t, err, "kv:read on private/a")
		_, err = cl.KV.Set(cl.As(made.GetSecret()), &registryv1.SetRequest{Key: "config/a"})
		requireLacks(t, err, "kv:write on local/config/a")
		_, err = cl.KV.Set(cl.As(made.GetSecret()), &registryv1.SetRequest{Key: "global/config/a"})
		requireLacks(t, err, "kv:write on global/config/a")
		_, err = cl.KV.Set(cl.As(made.GetSecret()), &registryv1.SetRequest{Key: "scratch/a"})
		require.NoError(t, err)
		_, err = cl.KV.Delete(cl.As(made.GetSecret()), &registryv1.DeleteRequest{Key: "scratch/", Recurse: true})
		requireLacks(t, err, "kv:delete on everything below local/scratch/")

		page, err := cl.KV.List(cl.As(made.GetSecret()), &registryv1.ListRequest{})
		require.NoError(t, err)
		var keys []string
		for _, e := range page.GetEntries() {
			keys = append(keys, e.GetKey())
		}
		require.Equal(t, []string{"config/a", "config/a", "scratch/a"}, keys)
		require.True(t, page.GetMeta().GetResultsFiltered())
		all, err := cl.KV.List(cl.Ctx(), &registryv1.ListRequest{})
		require.NoError(t, err)
		require.Len(t, all.GetEntries(), 4)
		require.False(t, all.GetMeta().GetResultsFiltered())

		services, err := cl.Catalog.ListServices(cl.As(made.GetSecret()), &registryv1.ListServicesRequest{})
		require.NoError(t, err)
		require.Len(t, services.GetServices(), 1)
		require.True(t, services.GetMeta().GetResultsFiltered())
		nodes, err := cl.Catalog.ListNodes(cl.As(made.GetSecret()), &registryv1.ListNodesRequest{})
		require.NoError(t, err)
		require.Len(t, nodes.GetNodes(), 1)
		_, err = cl.Catalog.QueryService(cl.As(made.GetSecret()), &registryv1.QueryServiceRequest{Service: "db"})
		requireLacks(t, err, "service:read on db")
		_, err = cl.Catalog.Register(cl.As(made.GetSecret()), &registryv1.RegisterRequest{
			Node: &registryv1.Node{Name: "n1", Address: "10.0.0.1"}, Service: &registryv1.Service{Id: "db-1", Name: "web"},
		})
		requireLacks(t, err, "service:write on db")
		_, err = cl.Catalog.Deregister(cl.As(made.GetSecret()), &registryv1.DeregisterRequest{ServiceId: "web-1"})
		requireLacks(t, err, "service:delete on web")
		_, err = cl.Operator.ClusterStatus(cl.As(made.GetSecret()), &registryv1.ClusterStatusRequest{})
		requireLacks(t, err, "operator:read on cluster")
		_, err = cl.ACL.CreateToken(cl.As(made.GetSecret()), &registryv1.CreateTokenRequest{Management: true})
		requireLacks(t, err, "acl:write on token")
		_, err = cl.ACL.ListTokens(cl.As(made.GetSecret()), &registryv1.ListTokensRequest{})
		requireLacks(t, err, "operator:read on acl")
		self, err := cl.ACL.GetSelf(cl.As(made.GetSecret()), &registryv1.GetSelfRequest{})
		require.NoError(t, err)
		require.Equal(t, made.GetToken().GetAccessorId(), self.GetToken().GetAccessorId())
	}

	batch, err := admin.KV.Batch(admin.As(made.GetSecret()), &registryv1.BatchRequest{Operations: []*registryv1.BatchOperation{
		{Operation: &registryv1.BatchOperation_Get{Get: &registryv1.GetRequest{Key: "config/a"}}},
		{Operation: &registryv1.BatchOperation_Get{Get: &registryv1.GetRequest{Key: "private/a"}}},
		{Operation: &registryv1.BatchOperation_Set{Set: &registryv1.SetRequest{Key: "scratch/b"}}},
		{Operation: &registryv1.BatchOperation_Delete{Delete: &registryv1.DeleteRequest{Key: "config/a"}}},
	}})
	require.NoError(t, err)
	require.Equal(t, "1", string(batch.GetResults()[0].GetGet().GetEntry().GetValue()))
	require.Equal(t, "token "+made.GetToken().GetAccessorId()+" lacks kv:read on private/a", batch.GetResults()[1].GetStatus().GetMessage())
	require.NotNil(t, batch.GetResults()[2].GetSet())
	require.Contains(t, batch.GetResults()[3].GetStatus().GetMessage(), "kv:delete on local/config/a")
}

func TestAWatchShowsWhatItsTokenMayReadAndEndsWithIt(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	admin := c.Client(c.Servers[0])
	made := limited(t, admin, "reader", "kv config/ read", "service web read")
	set(t, admin, "config/a", "1")
	set(t, admin, "private/a", "2")
	register(t, admin, "n1", "web-1", "web")
	register(t, admin, "n1", "db-1", "db")
	watch := func(table registryv1.Table) registryv1.WatchService_WatchClient {
		stream, err := admin.Watch.Watch(admin.As(made.GetSecret()), &registryv1.WatchRequest{Table: table, Heartbeat: durationpb.New(100 * time.Millisecond)})
		require.NoError(t, err)
		return stream
	}
	_, err := admin.Catalog.RegisterNode(admin.Ctx(), &registryv1.RegisterNodeRequest{
		Node: &registryv1.Node{Name: "n2", Address: "10.0.0.2"}, Checks: []*registryv1.Check{{Id: "disk", Status: registryv1.HealthStatus_HEALTH_STATUS_PASSING}},
		Services: []*registryv1.ServiceRegistration{
			{Service: &registryv1.Service{Id: "web-2", Name: "web"}, Checks: []*registryv1.Check{{Id: "http", Status: registryv1.HealthStatus_HEALTH_STATUS_PASSING}}},
			{Service: &registryv1.Service{Id: "db-2", Name: "db"}, Checks: []*registryv1.Check{{Id: "tcp", Status: registryv1.HealthStatus_HEALTH_STATUS_PASSING}}},
		},
	})
	require.NoError(t, err)
	listed, err := admin.Catalog.ListChecks(admin.As(made.GetSecret()), &registryv1.ListChecksRequest{})
	require.NoError(t, err)
	require.True(t, listed.GetMeta().GetResultsFiltered())
	for _, check := range listed.GetChecks() {
		require.Equal(t, "web", check.GetService(), "neither another service's nor a node's own")
	}
	checks := watch(registryv1.Table_TABLE_CHECK)
	initial, err := checks.Recv()
	require.NoError(t, err)
	for _, row := range initial.GetRecords() {
		require.True(t, strings.HasPrefix(row.GetKey(), "web-"), row.GetKey())
	}
	require.NotEmpty(t, initial.GetRecords())
	services := watch(registryv1.Table_TABLE_SERVICE)
	m, err := services.Recv()
	require.NoError(t, err)
	require.Len(t, m.GetRecords(), 2)
	require.True(t, m.GetMeta().GetResultsFiltered())

	keys := watch(registryv1.Table_TABLE_KV)
	m, err = keys.Recv()
	require.NoError(t, err)
	require.Len(t, m.GetRecords(), 1)
	set(t, admin, "private/b", "3")
	set(t, admin, "config/b", "4")
	seen := ""
	for seen == "" {
		m, err = keys.Recv()
		require.NoError(t, err)
		for _, row := range m.GetRecords() {
			seen = row.GetKey()
		}
	}
	require.Equal(t, "local/config/b", seen)

	_, err = admin.ACL.UpdatePolicy(admin.Ctx(), &registryv1.UpdatePolicyRequest{Policy: &registryv1.ACLPolicy{
		Name: "reader", Rules: []*registryv1.ACLRule{aclRule("kv private/ read")},
	}})
	require.NoError(t, err)
	for !m.GetResync() {
		m, err = keys.Recv()
		require.NoError(t, err)
		require.Empty(t, m.GetRecords())
	}

	keys = watch(registryv1.Table_TABLE_KV)
	_, err = keys.Recv()
	require.NoError(t, err)
	_, err = admin.ACL.DeleteToken(admin.Ctx(), &registryv1.DeleteTokenRequest{AccessorId: made.GetToken().GetAccessorId()})
	require.NoError(t, err)
	for err == nil {
		_, err = keys.Recv()
	}
	require.Equal(t, fault.Unauthenticated, fault.CodeOf(err), "%v", err)
	_, err = admin.KV.Get(admin.As(made.GetSecret()), &registryv1.GetRequest{Key: "config/a"})
	require.Equal(t, "TOKEN_UNKNOWN", fault.ReasonOf(err))
}

func TestAWatchOfWhatATokenMayNotReadIsRefused(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	admin := c.Client(c.Servers[0])
	made := limited(t, admin, "reader", "kv config/ read", "service web read")
	set(t, admin, "private/a", "1")
	set(t, admin, "config/a", "1")
	register(t, admin, "n1", "web-1", "web")
	register(t, admin, "n1", "db-1", "db")
	ctx, end := context.WithCancel(admin.As(made.GetSecret()))
	defer end()
	watch := func(req *registryv1.WatchRequest) (registryv1.WatchService_WatchClient, error) {
		stream, err := admin.Watch.Watch(ctx, req)
		require.NoError(t, err)
		_, err = stream.Recv()
		return stream, err
	}
	const kv = registryv1.Table_TABLE_KV
	for lacks, req := range map[string]*registryv1.WatchRequest{
		"kv:read on private/a":                        {Table: kv, Key: "private/a"},
		"kv:read on local/private/a":                  {Table: kv, Key: "local/private/a"},
		"kv:read on everything below private/":        {Table: kv, KeyPrefix: "private/"},
		"kv:read on everything below global/private/": {Table: kv, KeyPrefix: "global/private/"},
		"kv:read on everything below local/private/":  {Table: kv, Prefix: "local/private/"},
		"kv:read on none/yet":                         {Table: kv, Key: "none/yet"},
		"node:read on everything":                     {Table: registryv1.Table_TABLE_NODE},
		"node:read on n1":                             {Table: registryv1.Table_TABLE_NODE, Key: "n1"},
		"service:read on db":                          {Table: registryv1.Table_TABLE_SERVICE, Key: "db-1"},
		"service:read on everything below db":         {Table: registryv1.Table_TABLE_FAILOVER_POLICY, Prefix: "db"},
		"federation:read":                             {Table: registryv1.Table_TABLE_FEDERATION},
		"operator:read on replication":                {Table: registryv1.Table_TABLE_REPLICATION_CURSOR},
	} {
		_, err := watch(req)
		requireLacks(t, err, lacks)
	}
	instances, err := admin.Watch.WatchInstances(ctx, &registryv1.WatchInstancesRequest{Service: "db"})
	require.NoError(t, err)
	_, err = instances.Recv()
	requireLacks(t, err, "service:read on db")

	var open []registryv1.WatchService_WatchClient
	for _, req := range []*registryv1.WatchRequest{
		{Table: kv},
		{Table: kv, Prefix: "local/"},
		{Table: kv, Key: "config/none"},
		{Table: kv, KeyPrefix: "config/"},
		{Table: kv, KeyPrefix: "conf"},
		{Table: registryv1.Table_TABLE_SERVICE},
		{Table: registryv1.Table_TABLE_SERVICE, Key: "web-1"},
		{Table: registryv1.Table_TABLE_CHECK},
	} {
		req.Heartbeat = durationpb.New(100 * time.Millisecond)
		stream, err := watch(req)
		require.NoError(t, err, "%v", req)
		open = append(open, stream)
	}
	_, err = admin.ACL.UpdatePolicy(admin.Ctx(), &registryv1.UpdatePolicyRequest{Policy: &registryv1.ACLPolicy{
		Name: "reader", Rules: []*registryv1.ACLRule{aclRule("node n1 list")},
	}})
	require.NoError(t, err)
	for i, stream := range open {
		for err = nil; err == nil; {
			_, err = stream.Recv()
		}
		require.Equal(t, fault.PermissionDenied, fault.CodeOf(err), "%d: a watch whose rights were withdrawn ends with why: %v", i, err)
	}
}

func TestAccessControlAcrossTwoDatacenters(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	primary, secondary := p.one.Client(p.one.Servers[0]), p.two.Client(p.two.Servers[0])
	p.admit()
	p.replicate()

	// Written by a secondary, they are the primary's, and come back as copies, in an order that
	// never shows a token before what it has.
	makePolicy(t, secondary, "app", "kv app/ write", "kv global/app/ write", "service app read")
	p.replicate()
	_, err := secondary.ACL.CreateRole(secondary.Ctx(), &registryv1.CreateRoleRequest{Role: &registryv1.ACLRole{Name: "dev", Policies: []string{"app"}}})
	require.NoError(t, err)
	p.replicate()
	global, err := secondary.ACL.CreateToken(secondary.Ctx(), &registryv1.CreateTokenRequest{Roles: []string{"dev"}})
	require.NoError(t, err)
	require.Equal(t, "dc1", global.GetMeta().GetDatacenter())
	_, err = secondary.KV.Get(secondary.As(global.GetSecret()), &registryv1.GetRequest{Key: "app/x"})
	require.Equal(t, "TOKEN_UNKNOWN", fault.ReasonOf(err), "before replication")
	var kinds []string
	for _, e := range p.replicate() {
		kinds = append(kinds, e.GetType().String())
	}
	require.Equal(t, []string{"ACL_TOKEN"}, kinds)

	// The token travels with the call and is checked on both sides.
	as := func() string { return global.GetSecret() }
	_, err = secondary.KV.Set(secondary.As(as()), &registryv1.SetRequest{Key: "global/app/x", Value: []byte("1")})
	require.NoError(t, err)
	_, err = secondary.KV.Set(secondary.As(as()), &registryv1.SetRequest{Key: "app/x", Datacenter: "dc1"})
	require.NoError(t, err)
	_, err = secondary.KV.Set(secondary.As(as()), &registryv1.SetRequest{Key: "other", Datacenter: "dc1"})
	requireLacks(t, err, "kv:write on local/other")
	_, err = secondary.Catalog.QueryService(secondary.As(as()), &registryv1.QueryServiceRequest{Service: "db", Datacenter: "dc1"})
	requireLacks(t, err, "service:read on db")
	list, err := secondary.KV.List(secondary.As(as()), &registryv1.ListRequest{Datacenter: "dc1"})
	require.NoError(t, err)
	require.Len(t, list.GetEntries(), 2)

	// Revoked in the primary, it is refused there though the copy still knows it.
	_, err = primary.ACL.UpdatePolicy(primary.Ctx(), &registryv1.UpdatePolicyRequest{Policy: &registryv1.ACLPolicy{Name: "app", Rules: []*registryv1.ACLRule{aclRule("kv app/ deny")}}})
	require.NoError(t, err)
	_, err = secondary.KV.Set(secondary.As(as()), &registryv1.SetRequest{Key: "global/app/x"})
	requireLacks(t, err, "kv:write on global/app/x")
	_, err = secondary.KV.Set(secondary.As(as()), &registryv1.SetRequest{Key: "app/x"})
	require.NoError(t, err)
	p.replicate()
	_, err = secondary.KV.Set(secondary.As(as()), &registryv1.SetRequest{Key: "app/x"})
	requireLacks(t, err, "kv:write on local/app/x")

	// A local token is good at home alone and is never sent.
	local, err := secondary.ACL.CreateToken(secondary.Ctx(), &registryv1.CreateTokenRequest{Management: true, Local: true})
	require.NoError(t, err)
	require.Equal(t, "dc2", local.GetMeta().GetDatacenter())
	_, err = secondary.KV.Set(secondary.As(local.GetSecret()), &registryv1.SetRequest{Key: "mine"})
	require.NoError(t, err)
	_, err = secondary.KV.Set(secondary.As(local.GetSecret()), &registryv1.SetRequest{Key: "mine", Datacenter: "dc1"})
	require.Equal(t, "TOKEN_UNKNOWN", fault.ReasonOf(err))
	atHome, err := primary.ACL.CreateToken(primary.Ctx(), &registryv1.CreateTokenRequest{Management: true, Local: true})
	require.NoError(t, err)
	for _, e := range p.replicate() {
		require.NotContains(t, e.GetKey(), atHome.GetToken().GetAccessorId())
	}
	_, err = secondary.KV.Set(secondary.As(atHome.GetSecret()), &registryv1.SetRequest{Key: "mine"})
	require.Equal(t, "TOKEN_UNKNOWN", fault.ReasonOf(err))

	// From the primary, the secondary's local tokens are managed by naming it.
	named, err := primary.ACL.CreateToken(primary.Ctx(), &registryv1.CreateTokenRequest{Local: true, Datacenter: "dc2", Policies: []string{"app"}})
	require.NoError(t, err)
	require.Equal(t, "dc2", named.GetMeta().GetDatacenter())
	_, err = primary.ACL.DeleteToken(primary.Ctx(), &registryv1.DeleteTokenRequest{AccessorId: named.GetToken().GetAccessorId(), Datacenter: "dc2"})
	require.NoError(t, err)
	_, err = primary.ACL.DeleteToken(primary.Ctx(), &registryv1.DeleteTokenRequest{AccessorId: global.GetToken().GetAccessorId(), Datacenter: "dc2"})
	require.Equal(t, "NOT_PRIMARY", fault.ReasonOf(err))
	_, err = secondary.ACL.UpdateToken(secondary.Ctx(), &registryv1.UpdateTokenRequest{AccessorId: local.GetToken().GetAccessorId()})
	require.NoError(t, err, "a local token is written at home")
	_, err = secondary.KV.Set(secondary.As(local.GetSecret()), &registryv1.SetRequest{Key: "mine"})
	requireLacks(t, err, "kv:write on local/mine")

	_, err = secondary.ACL.Bootstrap(secondary.Bare(), &registryv1.BootstrapRequest{})
	require.Equal(t, "ACL_BOOTSTRAPPED", fault.ReasonOf(err), "the primary answers")
}

func TestACopyGetsPoliciesBeforeTheTokensThatHaveThem(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	primary := p.one.Client(p.one.Servers[0])
	limited(t, primary, "first", "kv ^ read")
	_, err := primary.ACL.CreateRole(primary.Ctx(), &registryv1.CreateRoleRequest{Role: &registryv1.ACLRole{Name: "team", Policies: []string{"first"}}})
	require.NoError(t, err)
	// The policy that denies is the youngest of all.
	_, err = primary.ACL.UpdatePolicy(primary.Ctx(), &registryv1.UpdatePolicyRequest{Policy: &registryv1.ACLPolicy{Name: "first", Rules: []*registryv1.ACLRule{aclRule("kv ^ deny")}}})
	require.NoError(t, err)
	last := 0
	ranks := map[federationv1.ReplicatedEntry_EntryType]int{federationv1.ReplicatedEntry_ACL_POLICY: 1, federationv1.ReplicatedEntry_ACL_ROLE: 2, federationv1.ReplicatedEntry_ACL_TOKEN: 3}
	seen := map[int]bool{}
	for _, e := range p.replicate() {
		rank := ranks[e.GetType()]
		if rank == 0 {
			continue
		}
		require.GreaterOrEqual(t, rank, last, "%s comes too late", e.GetType())
		last, seen[rank] = rank, true
	}
	require.Len(t, seen, 3)
}

func TestPoliciesAndRolesOverTheirLives(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	makePolicy(t, cl, "p", "kv ^ read")
	reason := func(_ any, err error) string { return fault.ReasonOf(err) }
	field := func(_ any, err error) string { f, _ := fault.As(err); return f.Field() }
	create := func(p *registryv1.ACLPolicy) (*registryv1.CreatePolicyResponse, error) {
		return cl.ACL.CreatePolicy(cl.Ctx(), &registryv1.CreatePolicyRequest{Policy: p})
	}
	require.Equal(t, "ACL_POLICY_EXISTS", reason(create(&registryv1.ACLPolicy{Name: "p"})))
	require.Equal(t, "policy.name", field(create(&registryv1.ACLPolicy{Name: "a b"})))
	require.Equal(t, "rules[1].resource", field(create(&registryv1.ACLPolicy{Name: "q", Rules: []*registryv1.ACLRule{aclRule("kv a read"), aclRule("volume a read")}})))
	require.Equal(t, "rules[0].access", field(create(&registryv1.ACLPolicy{Name: "q", Rules: []*registryv1.ACLRule{aclRule("kv a deny,read")}})))
	require.Equal(t, "rules[0].glob", field(create(&registryv1.ACLPolicy{Name: "q", Rules: []*registryv1.ACLRule{{Resource: "kv", Match: &registryv1.ACLRule_Glob{Glob: "a***"}, Access: []string{"read"}}}})))

	got, err := cl.ACL.GetPolicy(cl.Ctx(), &registryv1.GetPolicyRequest{Name: "p"})
	require.NoError(t, err)
	stale := got.GetPolicy().GetModifyIndex()
	update := func(cas *uint64) (*registryv1.UpdatePolicyResponse, error) {
		return cl.ACL.UpdatePolicy(cl.Ctx(), &registryv1.UpdatePolicyRequest{Policy: &registryv1.ACLPolicy{Name: "p", Description: "new"}, Cas: cas})
	}
	updated, err := update(&stale)
	require.NoError(t, err)
	require.Greater(t, updated.GetPolicy().GetModifyIndex(), stale)
	require.Equal(t, got.GetPolicy().GetCreateIndex(), updated.GetPolicy().GetCreateIndex())
	require.Equal(t, "CAS_MISMATCH", reason(update(&stale)))
	require.Equal(t, "ACL_POLICY_NOT_FOUND", reason(cl.ACL.UpdatePolicy(cl.Ctx(), &registryv1.UpdatePolicyRequest{Policy: &registryv1.ACLPolicy{Name: "none"}})))

	require.Equal(t, "role.policies[1]", field(cl.ACL.CreateRole(cl.Ctx(), &registryv1.CreateRoleRequest{Role: &registryv1.ACLRole{Name: "r", Policies: []string{"p", "none"}}})))
	_, err = cl.ACL.CreateRole(cl.Ctx(), &registryv1.CreateRoleRequest{Role: &registryv1.ACLRole{Name: "r", Policies: []string{"p", "p"}}})
	require.NoError(t, err)
	token, err := cl.ACL.CreateToken(cl.Ctx(), &registryv1.CreateTokenRequest{Roles: []string{"r"}, Secret: "a-secret-of-my-own", RequestId: "r1"})
	require.NoError(t, err)
	require.Equal(t, "a-secret-of-my-own", token.GetSecret())
	again, err := cl.ACL.CreateToken(cl.Ctx(), &registryv1.CreateTokenRequest{Roles: []string{"r"}, Secret: "a-secret-of-my-own", RequestId: "r1"})
	require.NoError(t, err, "a retry")
	require.Equal(t, token.GetToken().GetAccessorId(), again.GetToken().GetAccessorId())
	require.Equal(t, "ACL_SECRET_LOST", reason(cl.ACL.CreateToken(cl.Ctx(), &registryv1.CreateTokenRequest{Roles: []string{"r"}, RequestId: "r1"})))
	require.Equal(t, "ACL_TOKEN_EXISTS", reason(cl.ACL.CreateToken(cl.Ctx(), &registryv1.CreateTokenRequest{Secret: "a-secret-of-my-own"})))
	require.Equal(t, "secret", field(cl.ACL.CreateToken(cl.Ctx(), &registryv1.CreateTokenRequest{Secret: "short"})))

	byPolicy, err := cl.ACL.ListTokens(cl.Ctx(), &registryv1.ListTokensRequest{Policy: "p"})
	require.NoError(t, err)
	require.Len(t, byPolicy.GetTokens(), 1)
	require.Equal(t, "ACL_IN_USE", reason(cl.ACL.DeletePolicy(cl.Ctx(), &registryv1.DeletePolicyRequest{Name: "p"})))
	require.Equal(t, "ACL_IN_USE", reason(cl.ACL.DeleteRole(cl.Ctx(), &registryv1.DeleteRoleRequest{Name: "r"})))
	_, err = cl.ACL.DeletePolicy(cl.Ctx(), &registryv1.DeletePolicyRequest{Name: "p", Force: true, RequestId: "d1"})
	require.NoError(t, err)
	_, err = cl.ACL.DeletePolicy(cl.Ctx(), &registryv1.DeletePolicyRequest{Name: "p", Force: true, RequestId: "d1"})
	require.NoError(t, err, "a retry")
	require.Equal(t, "ACL_POLICY_NOT_FOUND", reason(cl.ACL.DeletePolicy(cl.Ctx(), &registryv1.DeletePolicyRequest{Name: "p", Force: true})))
	require.Equal(t, "ACL_TOKEN_NOT_FOUND", reason(cl.ACL.DeleteToken(cl.Ctx(), &registryv1.DeleteTokenRequest{AccessorId: "none"})))
	policies, err := cl.ACL.ListPolicies(cl.Ctx(), &registryv1.ListPoliciesRequest{})
	require.NoError(t, err)
	require.Empty(t, policies.GetPolicies())
}

func TestExplain(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	makePolicy(t, cl, "base", "kv config/ read,write")
	makePolicy(t, cl, "secrets", "service ^ read", "kv config/secret/ deny")
	_, err := cl.ACL.CreateRole(cl.Ctx(), &registryv1.CreateRoleRequest{Role: &registryv1.ACLRole{Name: "dev", Policies: []string{"secrets"}}})
	require.NoError(t, err)
	made, err := cl.ACL.CreateToken(cl.Ctx(), &registryv1.CreateTokenRequest{Policies: []string{"base"}, Roles: []string{"dev"}})
	require.NoError(t, err)
	explain := func(secret string, req *registryv1.ExplainRequest) (*registryv1.ExplainResponse, error) {
		return cl.ACL.Explain(cl.As(secret), req)
	}
	accessor := made.GetToken().GetAccessorId()
	got, err := explain(registrytest.Token, &registryv1.ExplainRequest{AccessorId: accessor, Resource: "kv", Access: "write", Name: "config/x"})
	require.NoError(t, err)
	require.True(t, got.GetAllowed())
	require.Equal(t, "kv:write on local/config/x", got.GetPermission())
	require.Len(t, got.GetMatches(), 1)
	require.Equal(t, "base", got.GetMatches()[0].GetPolicy())
	require.True(t, got.GetMatches()[0].GetDecisive())

	got, err = explain(made.GetSecret(), &registryv1.ExplainRequest{Resource: "kv", Access: "read", Name: "global/config/secret/x"})
	require.NoError(t, err, "everyone may ask about themselves")
	require.False(t, got.GetAllowed())
	require.Len(t, got.GetMatches(), 2)
	deny := got.GetMatches()[0]
	require.True(t, deny.GetDenies())
	require.Equal(t, []any{"secrets", "dev", uint32(1), true}, []any{deny.GetPolicy(), deny.GetRole(), deny.GetRule(), deny.GetDecisive()})
	require.False(t, got.GetMatches()[1].GetDecisive())

	_, err = explain(made.GetSecret(), &registryv1.ExplainRequest{AccessorId: "00000000-0000-0000-0000-000000000002", Resource: "kv", Access: "read"})
	requireLacks(t, err, "operator:read on acl")
	got, err = explain(registrytest.Token, &registryv1.ExplainRequest{Secret: made.GetSecret(), Resource: "operator", Access: "read", Name: "raft"})
	require.NoError(t, err)
	require.False(t, got.GetAllowed())
	require.Equal(t, accessor, got.GetAccessorId())
	require.Equal(t, "no rule allows it", got.GetReason())
	_, err = explain(registrytest.Token, &registryv1.ExplainRequest{Secret: "who-is-this-anyway", Resource: "kv", Access: "read"})
	require.Equal(t, fault.NotFound, fault.CodeOf(err))
	got, err = explain(registrytest.Token, &registryv1.ExplainRequest{Resource: "backup", Access: "write"})
	require.NoError(t, err)
	require.True(t, got.GetAllowed())
	_, err = explain(registrytest.Token, &registryv1.ExplainRequest{Resource: "volume", Access: "read"})
	f, _ := fault.As(err)
	require.Equal(t, "resource", f.Field())
}

func TestTheAuditLogNamesRefusalsAndChanges(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	made := limited(t, cl, "reader", "kv config/ read")
	const value = "a-value-that-is-nobodys-business"
	_, err := cl.KV.Set(cl.As(made.GetSecret()), &registryv1.SetRequest{Key: "private/x", Value: []byte(value), RequestId: "r-denied"})
	requireLacks(t, err, "kv:write on local/private/x")
	_, err = cl.KV.Batch(cl.As(made.GetSecret()), &registryv1.BatchRequest{Operations: []*registryv1.BatchOperation{
		{Operation: &registryv1.BatchOperation_Get{Get: &registryv1.GetRequest{Key: "private/y"}}},
	}})
	require.NoError(t, err)
	_, err = cl.KV.Get(cl.As("a-secret-nobody-has-01234"), &registryv1.GetRequest{Key: "x"})
	require.Equal(t, "TOKEN_UNKNOWN", fault.ReasonOf(err))
	stranger := c.ClientAs(c.Servers[0], c.DC, "replicator")
	_, err = stranger.KV.Get(stranger.Bare(), &registryv1.GetRequest{Key: "x"})
	require.Equal(t, "PEER_DENIED", fault.ReasonOf(err))
	_, err = cl.ACL.CreatePolicy(cl.Ctx(), &registryv1.CreatePolicyRequest{Policy: &registryv1.ACLPolicy{Name: "reader"}, RequestId: "r-twice"})
	require.Equal(t, "ACL_POLICY_EXISTS", fault.ReasonOf(err))
	_, err = cl.Catalog.SetFailoverPolicy(cl.Ctx(), &registryv1.SetFailoverPolicyRequest{
		Policy: &registryv1.FailoverPolicy{Service: "web", Failover: []*registryv1.FailoverTarget{{Datacenter: "dc2"}}}, RequestId: "r-failover",
	})
	require.NoError(t, err)
	set(t, cl, "config/a", value)
	authorize := func(secret string, needs ...*registryv1.ACLNeed) error {
		_, err := cl.Tokens.AuthorizeToken(cl.Bare(), &registryv1.AuthorizeTokenRequest{Secret: secret, Method: "/elsewhere", Needs: needs})
		return err
	}
	require.NoError(t, authorize(made.GetSecret(), &registryv1.ACLNeed{Resource: "kv", Access: "read", Name: "config/x"}))
	requireLacks(t, authorize(made.GetSecret(), &registryv1.ACLNeed{Resource: "federation", Access: "write", Name: "dc2"}), "federation:write on dc2")
	require.NoError(t, authorize(registrytest.Token, &registryv1.ACLNeed{Resource: "federation", Access: "write", Name: "dc3"}))
	require.Equal(t, "TOKEN_REQUIRED", fault.ReasonOf(authorize(rpc.AnonymousToken)))
	f, _ := fault.As(authorize(registrytest.Token, &registryv1.ACLNeed{Resource: "volume", Access: "read"}))
	require.Equal(t, "needs[0].resource", f.Field())
	c.Servers[0].Stop()

	changes, err := os.ReadFile(filepath.Join(c.Servers[0].DataDir(), "registry", "audit.log"))
	require.NoError(t, err)
	require.NotContains(t, string(changes), `"decision":"denied"`)
	text, err := os.ReadFile(filepath.Join(c.Servers[0].DataDir(), "registry", "audit-denied.log"))
	require.NoError(t, err)
	require.NotContains(t, string(text), `"decision":"allowed"`)
	text = append(text, changes...)
	for _, secret := range []string{made.GetSecret(), value, registrytest.Token, "a-secret-nobody-has"} {
		require.NotContains(t, string(text), secret)
	}
	accessor := made.GetToken().GetAccessorId()
	for name, want := range map[string][]string{
		"denied write":   {`"decision":"denied"`, `"dc":"dc1"`, accessor, ".KVService/Set", "svc/gateway", "kv:write on local/private/x", "PermissionDenied PERMISSION_DENIED", "r-denied"},
		"denied batch":   {`"decision":"denied"`, accessor, ".KVService/Get", "kv:read on private/y"},
		"unknown token":  {`"decision":"denied"`, ".KVService/Get", "Unauthenticated TOKEN_UNKNOWN"},
		"stranger":       {`"decision":"denied"`, "svc/replicator", "PEER_DENIED"},
		"policy made":    {`"decision":"allowed"`, ".ACLService/CreatePolicy", "acl:write on policy/reader", `"outcome":"OK"`},
		"token made":     {`"decision":"allowed"`, ".ACLService/CreateToken", `"outcome":"OK"`},
		"policy refused": {`"decision":"allowed"`, ".ACLService/CreatePolicy", "AlreadyExists ACL_POLICY_EXISTS", "r-twice"},
		"elsewhere":      {`"decision":"allowed"`, "/elsewhere", "federation:write on dc3", "authorized"},
		"not elsewhere":  {`"decision":"denied"`, accessor, "/elsewhere", "federation:write on dc2"},
		"failover":       {`"decision":"allowed"`, ".CatalogService/SetFailoverPolicy", "service:write on web", "r-failover"},
	} {
		found := 0
		for line := range strings.Lines(string(text)) {
			all := true
			for _, part := range want {
				all = all && strings.Contains(line, part)
			}
			if all {
				found++
			}
		}
		require.Equal(t, 1, found, "%s in\n%s", name, text)
	}
	require.NotContains(t, string(text), ".KVService/Set\",\"resource\":\"kv:write on local/config/a", "what is allowed and no administration is not noted")
}
