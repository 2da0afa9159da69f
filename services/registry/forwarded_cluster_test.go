package registry_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/registrytest"
)

func TestRegistrationsThroughAFollowerAreChecked(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	cl := c.Client(c.Follower())
	registration := func(service string) *registryv1.RegisterNodeRequest {
		return &registryv1.RegisterNodeRequest{
			Node:     &registryv1.Node{Name: "n1", Address: "10.0.0.1"},
			Services: []*registryv1.ServiceRegistration{{Service: &registryv1.Service{Name: service}}},
		}
	}
	makePolicy(t, cl, "public", "service web write", "node n1 write")
	const anonymous = "00000000-0000-0000-0000-000000000002"
	_, err := cl.Catalog.RegisterNode(cl.Bare(), registration("web"))
	require.Equal(t, "TOKEN_REQUIRED", fault.ReasonOf(err))
	_, err = cl.ACL.UpdateToken(cl.Ctx(), &registryv1.UpdateTokenRequest{AccessorId: anonymous, Policies: []string{"public"}})
	require.NoError(t, err)

	registrytest.Eventually(t, func() error {
		_, err := cl.Catalog.RegisterNode(cl.Bare(), registration("web"))
		return err
	})
	_, err = cl.Catalog.RegisterNode(cl.Bare(), registration("api"))
	requireLacks(t, err, "service:write on api")
	_, err = cl.Catalog.RegisterNode(cl.As("nobody's"), registration("web"))
	require.Equal(t, fault.Unauthenticated, fault.CodeOf(err))
	_, err = cl.Catalog.RegisterNode(cl.Ctx(), registration("api"))
	require.NoError(t, err)
	agent := c.ClientAs(c.Follower(), c.DC, "agent")
	_, err = agent.Catalog.RegisterNode(agent.Bare(), registration("db"))
	require.NoError(t, err, "an agent acts as itself")

	_, err = cl.Catalog.RegisterNode(cl.Ctx(), &registryv1.RegisterNodeRequest{Node: &registryv1.Node{Name: "n 1"}})
	f, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.InvalidArgument, f.Code())
	require.NotEmpty(t, f.Remedy())
}

func TestManyRegistrationsThroughAFollowerAreEachAnswered(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	cl := c.Client(c.Follower())
	const count = 200
	var calls sync.WaitGroup
	errs := make([]error, count)
	for i := range count {
		calls.Go(func() {
			req := fleet(nodeName(i), nodeName(i), 2, 0)
			if i%10 == 0 {
				req.Services[1].Service.Port = 1 << 20
			}
			_, errs[i] = cl.Catalog.RegisterNode(cl.Ctx(), req)
		})
	}
	calls.Wait()
	nodes, err := cl.Catalog.ListNodes(cl.Ctx(), &registryv1.ListNodesRequest{})
	require.NoError(t, err)
	there := map[string]bool{}
	for _, n := range nodes.GetNodes() {
		there[n.GetName()] = true
	}
	for i, err := range errs {
		if i%10 == 0 {
			require.Equal(t, fault.InvalidArgument, fault.CodeOf(err))
			require.ErrorContains(t, err, "services[1].service.port")
		} else {
			require.NoError(t, err)
		}
		require.Equal(t, i%10 != 0, there[nodeName(i)], "node %d", i)
	}
}

// A request is carried out once, whichever servers it comes by.
func TestARegistrationThatIsRepeatedElsewhereIsDoneOnce(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	leader, follower := c.Client(c.Leader()), c.Client(c.Follower())
	req := fleet("n1", "web", 2, 0)
	req.RequestId = "4f6b1f0e-8f0a-4c1e-9a3b-0a1b2c3d4e5f"
	first := registerFleet(t, follower, req)
	again := registerFleet(t, leader, req)
	require.Equal(t, first.GetMeta().GetIndex(), again.GetMeta().GetIndex())
	other := fleet("n2", "api", 1, 0)
	other.RequestId = req.GetRequestId()
	_, err := follower.Catalog.RegisterNode(follower.Ctx(), other)
	require.Equal(t, "REQUEST_ID_REUSED", fault.ReasonOf(err))
}

// Servers of earlier versions asked their leader over a stream that they kept, and go over to
// ordinary calls when it takes none.
func TestALeaderTakesNoStreamOfQuestions(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	server := c.ClientAs(c.Leader(), c.DC, "registry")
	stream, err := server.Proposals.Ask(server.Bare()) //nolint:staticcheck // what earlier versions send
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, fault.Unimplemented, fault.CodeOf(err))
}

func nodeName(i int) string { return fmt.Sprintf("node-%d", i) }
