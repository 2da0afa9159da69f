package registry_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry"
	"konsul.dev/services/registry/registrytest"
)

func TestBootstrapWorksOnce(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, 3, registrytest.Options{Adjust: func(cfg *registry.Config) { cfg.Registry.InitialManagementTokenFile = "" }})
	c.Leader()
	const many = 12
	answers := make([]*registryv1.BootstrapResponse, many)
	errs := make([]error, many)
	var wg sync.WaitGroup
	for i := range many {
		cl := c.Client(c.Servers[i%3])
		wg.Go(func() { answers[i], errs[i] = cl.ACL.Bootstrap(cl.Bare(), &registryv1.BootstrapRequest{}) })
	}
	wg.Wait()
	var won []*registryv1.BootstrapResponse
	for i := range many {
		if errs[i] == nil {
			won = append(won, answers[i])
			continue
		}
		require.Equal(t, "ACL_BOOTSTRAPPED", fault.ReasonOf(errs[i]), "%v", errs[i])
	}
	require.Len(t, won, 1)
	first := won[0]
	cl := c.Client(c.Leader())
	self, err := cl.ACL.GetSelf(cl.As(first.GetSecret()), &registryv1.GetSelfRequest{})
	require.NoError(t, err)
	require.True(t, self.GetToken().GetManagement())

	// Whoever did it repeats it and hears the same.
	const chosen = "a-secret-that-was-chosen"
	_, err = cl.ACL.Bootstrap(cl.Bare(), &registryv1.BootstrapRequest{Secret: chosen})
	require.Equal(t, "ACL_BOOTSTRAPPED", fault.ReasonOf(err))

	// The last management token stays unless forced; after that nobody without a token gets in.
	remove := func(force bool) error {
		_, err := cl.ACL.DeleteToken(cl.As(first.GetSecret()), &registryv1.DeleteTokenRequest{AccessorId: first.GetToken().GetAccessorId(), Force: force})
		return err
	}
	require.Equal(t, "ACL_LAST_MANAGEMENT_TOKEN", fault.ReasonOf(remove(false)))
	_, err = cl.ACL.UpdateToken(cl.As(first.GetSecret()), &registryv1.UpdateTokenRequest{AccessorId: first.GetToken().GetAccessorId()})
	require.Equal(t, "ACL_LAST_MANAGEMENT_TOKEN", fault.ReasonOf(err))
	require.NoError(t, remove(true))
	_, err = cl.ACL.Bootstrap(cl.Bare(), &registryv1.BootstrapRequest{})
	require.Equal(t, "ACL_BOOTSTRAPPED", fault.ReasonOf(err))

	// The reset index in a file on the leader opens it once more.
	f, _ := fault.As(err)
	at := f.Meta()["reset_index"]
	require.NotEmpty(t, at)
	file := filepath.Join(c.Leader().DataDir(), "registry", "acl-bootstrap-reset")
	for _, nothing := range []string{"1\n", "", "yes\n"} {
		require.NoError(t, os.WriteFile(file, []byte(nothing), 0o600))
		_, err = cl.ACL.Bootstrap(cl.Bare(), &registryv1.BootstrapRequest{})
		require.Equal(t, "ACL_BOOTSTRAPPED", fault.ReasonOf(err), "%q opens nothing", nothing)
	}
	require.NoError(t, os.WriteFile(file, []byte(at+"\n"), 0o600))
	again, err := cl.ACL.Bootstrap(cl.Bare(), &registryv1.BootstrapRequest{Secret: chosen, RequestId: "r1"})
	require.NoError(t, err)
	require.Equal(t, chosen, again.GetSecret())
	require.NoFileExists(t, file)
	repeated, err := cl.ACL.Bootstrap(cl.Bare(), &registryv1.BootstrapRequest{Secret: chosen, RequestId: "r1"})
	require.NoError(t, err, "a retry of the same request hears the same")
	require.Equal(t, again.GetToken().GetAccessorId(), repeated.GetToken().GetAccessorId())
	_, err = cl.ACL.Bootstrap(cl.Bare(), &registryv1.BootstrapRequest{})
	require.Equal(t, "ACL_BOOTSTRAPPED", fault.ReasonOf(err))
}

func TestATokenFileClosesTheBootstrap(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	_, err := cl.ACL.Bootstrap(cl.Bare(), &registryv1.BootstrapRequest{})
	require.Equal(t, "ACL_BOOTSTRAPPED", fault.ReasonOf(err))
	f, _ := fault.As(err)
	require.NotEmpty(t, f.Meta()["reset_index"])
}

func TestTwoManagementTokensCannotDeleteEachOther(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	for round := range 5 {
		second, err := cl.ACL.CreateToken(cl.Ctx(), &registryv1.CreateTokenRequest{Management: true})
		require.NoError(t, err)
		self, err := cl.ACL.GetSelf(cl.Ctx(), &registryv1.GetSelfRequest{})
		require.NoError(t, err)
		third, err := cl.ACL.CloneToken(cl.Ctx(), &registryv1.CloneTokenRequest{AccessorId: second.GetToken().GetAccessorId()})
		require.NoError(t, err)
		require.True(t, third.GetToken().GetManagement())
		// Three go at once, and each is asked to go by the first: one stays.
		errs := make([]error, 2)
		var wg sync.WaitGroup
		for i, accessor := range []string{second.GetToken().GetAccessorId(), third.GetToken().GetAccessorId()} {
			wg.Go(func() {
				_, errs[i] = cl.ACL.DeleteToken(cl.Ctx(), &registryv1.DeleteTokenRequest{AccessorId: accessor})
			})
		}
		wg.Wait()
		require.NoError(t, errs[0], "round %d", round)
		require.NoError(t, errs[1], "the token of the tests is left")
		_, err = cl.ACL.DeleteToken(cl.Ctx(), &registryv1.DeleteTokenRequest{AccessorId: self.GetToken().GetAccessorId()})
		require.Equal(t, "ACL_LAST_MANAGEMENT_TOKEN", fault.ReasonOf(err))
	}
}

func TestATokenExpiresAndIsReaped(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	cl := c.Client(c.Follower())
	made, err := cl.ACL.CreateToken(cl.Ctx(), &registryv1.CreateTokenRequest{Management: true, Ttl: durationpb.New(1500 * time.Millisecond)})
	require.NoError(t, err)
	c.Eventually(func() error {
		_, err := cl.KV.List(cl.As(made.GetSecret()), &registryv1.ListRequest{Limit: 1})
		return err
	})
	for _, s := range c.Servers {
		other := c.Client(s)
		c.Eventually(func() error {
			_, err := other.KV.List(other.As(made.GetSecret()), &registryv1.ListRequest{Limit: 1})
			if fault.CodeOf(err) != fault.Unauthenticated {
				return fmt.Errorf("still good: %w", err)
			}
			return nil
		})
	}
	c.Eventually(func() error {
		_, err := cl.ACL.GetToken(cl.Ctx(), &registryv1.GetTokenRequest{AccessorId: made.GetToken().GetAccessorId()})
		if fault.ReasonOf(err) != "ACL_TOKEN_NOT_FOUND" {
			return fmt.Errorf("not reaped: %w", err)
		}
		return nil
	})
	_, err = cl.ACL.CreateToken(cl.Ctx(), &registryv1.CreateTokenRequest{Ttl: durationpb.New(-time.Second)})
	f, _ := fault.As(err)
	require.Equal(t, "ttl", f.Field())
}

func TestRequestsWithoutATokenHaveWhatTheAnonymousTokenHas(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	set(t, cl, "public/motd", "hello")
	set(t, cl, "private/a", "x")
	read := func(key string) error {
		_, err := cl.KV.Get(cl.Bare(), &registryv1.GetRequest{Key: key})
		return err
	}
	require.Equal(t, "TOKEN_REQUIRED", fault.ReasonOf(read("public/motd")))
	makePolicy(t, cl, "public", "kv public/ read", "service ^ read")
	const anonymous = "00000000-0000-0000-0000-000000000002"
	_, err := cl.ACL.UpdateToken(cl.Ctx(), &registryv1.UpdateTokenRequest{AccessorId: anonymous, Management: true})
	require.Equal(t, "ACL_ANONYMOUS_TOKEN", fault.ReasonOf(err))
	_, err = cl.ACL.UpdateToken(cl.Ctx(), &registryv1.UpdateTokenRequest{AccessorId: anonymous, Policies: []string{"public"}})
	require.NoError(t, err)
	require.NoError(t, read("public/motd"))
	requireLacks(t, read("private/a"), "kv:read on private/a")
	_, err = cl.ACL.DeleteToken(cl.Ctx(), &registryv1.DeleteTokenRequest{AccessorId: anonymous})
	require.Equal(t, "ACL_ANONYMOUS_TOKEN", fault.ReasonOf(err))

	// The gateway may query for itself; for somebody without a token it says so, and is held to
	// their rights.
	register(t, cl, "n1", "web-1", "web")
	_, err = cl.Catalog.QueryService(cl.As(rpc.AnonymousToken), &registryv1.QueryServiceRequest{Service: "web"})
	require.NoError(t, err)
	nodes, err := cl.Catalog.ListNodes(cl.As(rpc.AnonymousToken), &registryv1.ListNodesRequest{})
	require.NoError(t, err)
	require.Empty(t, nodes.GetNodes())
	nodes, err = cl.Catalog.ListNodes(cl.Bare(), &registryv1.ListNodesRequest{})
	require.NoError(t, err)
	require.Len(t, nodes.GetNodes(), 1)
}

func TestAServerThatLagsRefusesNoTokenItDoesNotKnowYet(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, 3, registrytest.Options{Wired: true})
	lagging := c.Follower()
	admin, cl := c.Client(c.Leader()), c.Client(lagging)
	lagging.Cut()
	made, err := admin.ACL.CreateToken(admin.Ctx(), &registryv1.CreateTokenRequest{Management: true})
	require.NoError(t, err)
	use := func() error {
		_, err := cl.KV.List(cl.As(made.GetSecret()), &registryv1.ListRequest{Limit: 1, ReadMode: registryv1.ReadMode_READ_MODE_STALE})
		if err != nil {
			require.Equal(t, fault.Unavailable, fault.CodeOf(err), "%v", err)
		}
		return err
	}
	introspect := func() error {
		_, err := cl.Tokens.IntrospectToken(cl.Bare(), &registryv1.IntrospectTokenRequest{Secret: made.GetSecret()})
		if err != nil {
			require.Equal(t, fault.Unavailable, fault.CodeOf(err), "%v", err)
		}
		return err
	}
	require.Error(t, use())
	require.Error(t, introspect())
	lagging.Heal()
	c.Eventually(use)
	require.NoError(t, introspect())
	_, err = cl.KV.List(cl.As("a-secret-nobody-has-01234"), &registryv1.ListRequest{Limit: 1})
	require.Equal(t, "TOKEN_UNKNOWN", fault.ReasonOf(err))
}

func TestALockTakesWhatTheKeyOfItsNameTakes(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	id := grant(t, cl, time.Minute)
	may := limited(t, cl, "jobs", "kv jobs/ write", "kv jobs/payroll deny", "kv shown/ list").GetSecret()
	acquire := func(name string) (*registryv1.AcquireLockResponse, error) {
		return cl.Locks.Acquire(cl.As(may), &registryv1.AcquireLockRequest{Name: name, Lease: id})
	}
	held, err := acquire("jobs/nightly")
	require.NoError(t, err)
	_, err = acquire("jobs/payroll")
	requireLacks(t, err, "kv:write on local/jobs/payroll")
	_, err = acquire("shown/a")
	requireLacks(t, err, "kv:write on local/shown/a")
	_, err = cl.Locks.Get(cl.As(may), &registryv1.GetLockRequest{Name: "shown/a"})
	requireLacks(t, err, "kv:read on local/shown/a")
	_, err = cl.Locks.Acquire(cl.Ctx(), &registryv1.AcquireLockRequest{Name: "jobs/payroll", Lease: id})
	require.NoError(t, err)
	_, err = cl.Locks.Release(cl.As(may), &registryv1.ReleaseLockRequest{Name: "jobs/payroll", Token: 1})
	requireLacks(t, err, "kv:write on local/jobs/payroll")
	seen, err := cl.Locks.List(cl.As(may), &registryv1.ListLocksRequest{})
	require.NoError(t, err)
	require.Len(t, seen.GetLocks(), 1)
	require.Equal(t, "jobs/nightly", seen.GetLocks()[0].GetName())
	require.True(t, seen.GetMeta().GetResultsFiltered())
	_, err = cl.Locks.Release(cl.As(may), &registryv1.ReleaseLockRequest{Name: "jobs/nightly", Token: held.GetLock().GetToken()})
	require.NoError(t, err)
}
