package route_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/services/gateway/internal/route"
)

func TestDecide(t *testing.T) {
	const td = "11111111-2222-4333-8444-555555555555.konsul"
	table := route.New("us-east", td, map[string][]string{"registry": {"r1:8502", "r2:8502"}, "wan-gossip": {"g:8512"}}).
		With(map[string][]string{
			"us-west": {"west:8443", "me:8443"}, "eu-central": {}, "us-east": {"me:8443"}, "mirror": {"me:8443"},
		}, []string{"me:8443"})
	for name, c := range map[string]struct {
		sni  string
		want route.Decision
	}{
		"own component":          {"registry.control.us-east." + td, route.Decision{Kind: route.Control, Datacenter: "us-east", Service: "registry", Addresses: []string{"r1:8502", "r2:8502"}}},
		"component with hyphen":  {"wan-gossip.control.us-east." + td, route.Decision{Kind: route.Control, Datacenter: "us-east", Service: "wan-gossip", Addresses: []string{"g:8512"}}},
		"own workload":           {"payment-api.us-east." + td, route.Decision{Kind: route.Workload, Datacenter: "us-east", Service: "payment-api"}},
		"workload named control": {"control.us-east." + td, route.Decision{Kind: route.Workload, Datacenter: "us-east", Service: "control"}},
		"remote component":       {"registry.control.us-west." + td, route.Decision{Kind: route.Remote, Datacenter: "us-west", Service: "registry", Addresses: []string{"west:8443"}}},
		"remote workload":        {"api.us-west." + td, route.Decision{Kind: route.Remote, Datacenter: "us-west", Service: "api", Addresses: []string{"west:8443"}}},
		"unknown component":      {"etcd.control.us-east." + td, route.Decision{Reason: route.UnknownComponent, Datacenter: "us-east"}},
		"unknown datacenter":     {"registry.control.mars." + td, route.Decision{Reason: route.UnknownDatacenter}},
		"no gateway known":       {"registry.control.eu-central." + td, route.Decision{Reason: route.NoGateway, Datacenter: "eu-central"}},
		"only itself":            {"registry.control.mirror." + td, route.Decision{Reason: route.NoGateway, Datacenter: "mirror"}},
		"other federation":       {"registry.control.us-east.99999999-2222-4333-8444-555555555555.konsul", route.Decision{Reason: route.ForeignTrustDomain}},
		"other world":            {"www.example.com", route.Decision{Reason: route.MalformedName}},
		"too many labels":        {"a.b.c.us-east." + td, route.Decision{Reason: route.MalformedName}},
		"empty label":            {".us-east." + td, route.Decision{Reason: route.MalformedName}},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, table.Decide(c.sni)) })
	}
}

func TestWithLeavesTheOldTableAlone(t *testing.T) {
	const td = "f.konsul"
	first := route.New("us-east", td, nil)
	second := first.With(map[string][]string{"us-west": {"w:1"}}, nil)
	require.Equal(t, route.UnknownDatacenter, first.Decide("a.us-west."+td).Reason)
	require.Equal(t, route.Remote, second.Decide("a.us-west."+td).Kind)
}
