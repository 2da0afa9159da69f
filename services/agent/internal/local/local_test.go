package local_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/servicedef"
	"konsul.dev/services/agent/internal/local"
	"konsul.dev/services/agent/internal/reconcile"
)

const (
	passing  = registryv1.HealthStatus_HEALTH_STATUS_PASSING
	critical = registryv1.HealthStatus_HEALTH_STATUS_CRITICAL
)

func api() *servicedef.Definition {
	return &servicedef.Definition{Name: "api", ID: "api-1", Port: 80, Checks: []servicedef.Check{{ID: "ttl", TTL: time.Second}}}
}

func state(definitions ...*servicedef.Definition) *local.State {
	s := local.New(&registryv1.Node{Name: "n1", Address: "10.0.0.1"})
	s.Define(definitions, true)
	return s
}

var key = local.CheckKey{Service: "api-1", Check: "ttl"}

func TestDesiredFillsTheNodesAddressAndMarks(t *testing.T) {
	d := api()
	d.Meta = map[string]string{"team": "pay", reconcile.MarkKey: "me"}
	service := state(d).Desired().Instances[0].Service
	require.Equal(t, "10.0.0.1", service.GetAddress())
	require.Equal(t, "n1", service.GetNode())
	require.Equal(t, map[string]string{"team": "pay", reconcile.MarkKey: reconcile.MarkValue}, service.GetMeta())
	require.Equal(t, "me", d.Meta[reconcile.MarkKey], "the definition is not changed")
}

func TestBeforeTheFirstDefinitionNothingIsComplete(t *testing.T) {
	require.False(t, local.New(&registryv1.Node{Name: "n1"}).Desired().Complete)
}

func TestOutcomesAreReportedOnce(t *testing.T) {
	s := state(api())
	require.True(t, s.Observe(key, local.Outcome{Status: passing}))
	require.Empty(t, s.Unreported(), "the registry does not have the service yet")
	require.False(t, s.Services()[0].Synced)

	s.Synced(s.Desired().Instances...)
	require.Empty(t, s.Unreported(), "it came along with the registration")
	require.True(t, s.Services()[0].Synced)
	require.False(t, s.Observe(key, local.Outcome{Status: passing, Output: "other words"}))

	require.True(t, s.Observe(key, local.Outcome{Status: critical}))
	require.False(t, s.Services()[0].Synced)
	updates := s.Unreported()
	require.Len(t, updates, 1)
	s.Reported(updates)
	require.Empty(t, s.Unreported())
	require.True(t, s.Services()[0].Synced)
}

func TestAnOutcomeThatComesDuringTheRegistrationIsNotLost(t *testing.T) {
	s := state(api())
	s.Observe(key, local.Outcome{Status: passing})
	sent := s.Desired().Instances
	s.Observe(key, local.Outcome{Status: critical})
	s.Synced(sent...)
	require.Len(t, s.Unreported(), 1)
}

func TestOutcomesOfRemovedChecksAreForgotten(t *testing.T) {
	s := state(api())
	s.Observe(key, local.Outcome{Status: passing})
	s.Define(nil, true)
	require.False(t, s.Observe(key, local.Outcome{Status: critical}))
	s.Define([]*servicedef.Definition{api()}, true)
	require.Equal(t, registryv1.HealthStatus_HEALTH_STATUS_UNSPECIFIED, s.Desired().Instances[0].Checks[0].GetStatus())
}

func TestFirstInstanceGivesThePolicy(t *testing.T) {
	a, b := api(), api()
	a.Failover = []servicedef.Target{{Datacenter: "us-west", Targets: 3}}
	b.ID, b.Failover = "api-2", []servicedef.Target{{Datacenter: "eu-central"}}
	policies := state(a, b).Policies()
	require.Len(t, policies, 1)
	require.Equal(t, "us-west", policies["api"].GetFailover()[0].GetDatacenter())
	require.Equal(t, uint32(3), policies["api"].GetFailover()[0].GetTargets())
}
