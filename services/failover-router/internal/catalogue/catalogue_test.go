package catalogue_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	"konsul.dev/services/failover-router/internal/catalogue"
)

// registry returns as told; methods that are not needed panic.
type registry struct {
	registryv1.CatalogServiceClient

	err      error
	staleErr error
	asked    int
	policy   *registryv1.FailoverPolicy
}

func (r *registry) QueryService(_ context.Context, in *registryv1.QueryServiceRequest, _ ...grpc.CallOption) (*registryv1.QueryServiceResponse, error) {
	r.asked++
	err := r.err
	if in.GetReadMode() == registryv1.ReadMode_READ_MODE_STALE {
		err = r.staleErr
	}
	if err != nil {
		return nil, err
	}
	return &registryv1.QueryServiceResponse{Instances: []*registryv1.ServiceInstance{{Datacenter: in.GetDatacenter()}}}, nil
}

func (r *registry) GetFailoverPolicy(context.Context, *registryv1.GetFailoverPolicyRequest, ...grpc.CallOption) (*registryv1.GetFailoverPolicyResponse, error) {
	r.asked++
	if r.err != nil {
		return nil, r.err
	}
	if r.policy == nil {
		return nil, fault.New(fault.NotFound, "FAILOVER_POLICY_NOT_FOUND", "none")
	}
	return &registryv1.GetFailoverPolicyResponse{Policy: r.policy}, nil
}

func unavailable() error { return fault.New(fault.Unavailable, "", "gone") }

func setup() (*catalogue.Catalogue, *registry, *clock.Manual) {
	r, clk := &registry{}, clock.NewManual(time.Unix(0, 0))
	return catalogue.New(catalogue.Params{Registry: r, Datacenter: "us-east", Lease: 30 * time.Second, Clock: clk}), r, clk
}

func TestAnswersAreUsedAgainWhileYoung(t *testing.T) {
	c, r, clk := setup()
	require.NoError(t, c.Instances(t.Context(), "us-west", "api", time.Second).Err)
	require.Len(t, c.Instances(t.Context(), "us-west", "api", time.Second).Instances, 1)
	require.Equal(t, 1, r.asked)
	c.Instances(t.Context(), "us-west", "other", time.Second)
	c.Instances(t.Context(), "us-east", "api", time.Second)
	require.Equal(t, 3, r.asked, "one service in one datacenter is one entry")
	c.Instances(t.Context(), "us-west", "api", 0)
	require.Equal(t, 4, r.asked, "zero asks anew")
	clk.Advance(time.Second)
	c.Instances(t.Context(), "us-west", "api", time.Second)
	require.Equal(t, 5, r.asked)
}

func TestALostDatacentersAnswerHoldsForTheLeaseOnly(t *testing.T) {
	c, r, clk := setup()
	c.Instances(t.Context(), "us-west", "api", 0)
	r.err = unavailable()
	clk.Advance(29 * time.Second)
	answer := c.Instances(t.Context(), "us-west", "api", time.Second)
	require.Error(t, answer.Err)
	require.True(t, answer.Stale())
	require.Len(t, answer.Instances, 1)

	asked := r.asked
	require.True(t, c.Instances(t.Context(), "us-west", "api", time.Second).Stale())
	require.Equal(t, asked, r.asked, "a failure is remembered, too")
	clk.Advance(time.Second)
	answer = c.Instances(t.Context(), "us-west", "api", time.Second)
	require.Error(t, answer.Err)
	require.Empty(t, answer.Instances, "the lease is over")
	require.False(t, answer.Stale())

	r.err = nil
	clk.Advance(time.Second)
	require.NoError(t, c.Instances(t.Context(), "us-west", "api", time.Second).Err)
}

func TestACallersChangeOfMindIsNotRemembered(t *testing.T) {
	c, r, _ := setup()
	r.err = fault.New(fault.Canceled, "", "canceled")
	require.Error(t, c.Instances(t.Context(), "us-west", "api", time.Second).Err)
	r.err = nil
	require.NoError(t, c.Instances(t.Context(), "us-west", "api", time.Second).Err)
}

func TestWithoutALeaderAnyServerWillDo(t *testing.T) {
	c, r, _ := setup()
	r.err = fault.New(fault.Unavailable, fault.ReasonNoLeader, "no leader")
	require.NoError(t, c.Instances(t.Context(), "us-east", "api", 0).Err)
	require.Error(t, c.Instances(t.Context(), "us-west", "api", 0).Err, "another datacenter's registry decides for itself")
}

func TestPolicies(t *testing.T) {
	c, r, clk := setup()
	require.Nil(t, c.Policy(t.Context(), "api", time.Second))
	require.Nil(t, c.Policy(t.Context(), "api", time.Second))
	require.Equal(t, 1, r.asked, "that there is none is remembered")
	r.policy = &registryv1.FailoverPolicy{Service: "api"}
	clk.Advance(time.Second)
	require.Equal(t, "api", c.Policy(t.Context(), "api", time.Second).GetService())
	r.err = unavailable()
	clk.Advance(time.Hour)
	require.Equal(t, "api", c.Policy(t.Context(), "api", time.Second).GetService(), "a policy does not die with its registry")
}
