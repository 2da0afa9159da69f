package workload_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/identity"
	"konsul.dev/services/gateway/internal/workload"
)

type registry struct {
	registryv1.CatalogServiceClient

	asked     atomic.Int64
	instances []*registryv1.ServiceInstance
	err       error
}

func (r *registry) QueryService(_ context.Context, req *registryv1.QueryServiceRequest, _ ...grpc.CallOption) (*registryv1.QueryServiceResponse, error) {
	r.asked.Add(1)
	if r.err != nil {
		return nil, r.err
	}
	if !req.GetPassingOnly() || req.GetService() != "api" {
		return &registryv1.QueryServiceResponse{}, nil
	}
	return &registryv1.QueryServiceResponse{Instances: r.instances}, nil
}

func TestInstancesAreRememberedAndOutliveTheRegistry(t *testing.T) {
	r := &registry{instances: []*registryv1.ServiceInstance{
		{Service: &registryv1.Service{Address: "10.0.0.1", Port: 80}},
		{Service: &registryv1.Service{Port: 81}, Node: &registryv1.Node{Address: "fd00::1"}},
	}}
	now := clock.NewManual(time.Now())
	c := workload.New(r, now, time.Second, time.Minute)
	want := []string{"10.0.0.1:80", "[fd00::1]:81"}
	for range 3 {
		got, err := c.Instances(t.Context(), "api")
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	require.Equal(t, int64(1), r.asked.Load())

	now.Advance(2 * time.Second)
	r.err = errors.New("no registry")
	for range 3 {
		got, err := c.Instances(t.Context(), "api")
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	require.Equal(t, int64(2), r.asked.Load(), "a registry that is away is not asked each time")
	now.Advance(time.Minute)
	_, err := c.Instances(t.Context(), "api")
	require.ErrorIs(t, err, r.err)
}

func TestUnknownServicesHaveNoInstances(t *testing.T) {
	got, err := workload.New(&registry{}, clock.System(), time.Minute, time.Minute).Instances(t.Context(), "nobody")
	require.NoError(t, err)
	require.Empty(t, got)
}

func TestAdmit(t *testing.T) {
	for name, c := range map[string]struct {
		id identity.ID
		ok bool
	}{
		"router here":      {identity.ID{Datacenter: "us-east", Kind: identity.KindService, Service: "failover-router"}, true},
		"router elsewhere": {identity.ID{Datacenter: "us-west", Kind: identity.KindService, Service: "failover-router"}, true},
		"workload":         {identity.ID{Datacenter: "us-west", Kind: identity.KindWorkload, Service: "web"}, true},
		"registry":         {identity.ID{Datacenter: "us-east", Kind: identity.KindService, Service: "registry"}, false},
		"gateway":          {identity.ID{Datacenter: "us-west", Kind: identity.KindService, Service: "gateway"}, false},
		"nobody":           {identity.ID{}, false},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.ok, workload.Admit(c.id) == nil) })
	}
}
