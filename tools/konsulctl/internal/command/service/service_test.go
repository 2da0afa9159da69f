package service_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/konsul/konsultest"
	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

func TestRegisterFromFlags(t *testing.T) {
	gateway := commandtest.Federation(t)
	r := commandtest.Ctl(t, gateway, "", "service", "register", "--name", "api", "--id", "api-1", "--address", "10.0.0.5", "--port", "8080",
		"--tag", "v1", "--tag", "http", "--meta", "team=web", "--check", "http=passing", "--datacenter", "us-east", "--node", "n1", "--node-address", "10.0.0.1")
	require.Zero(t, r.Code, r.Stderr)
	commandtest.Same(t, &registryv1.RegisterRequest{
		Node:       &registryv1.Node{Name: "n1", Address: "10.0.0.1"},
		Service:    &registryv1.Service{Id: "api-1", Name: "api", Node: "n1", Address: "10.0.0.5", Port: 8080, Tags: []string{"v1", "http"}, Meta: map[string]string{"team": "web"}},
		Checks:     []*registryv1.Check{{Id: "http", ServiceId: "api-1", Status: commandtest.Passing}},
		Datacenter: "us-east",
	}, konsultest.Last[*registryv1.RegisterRequest](gateway))

	for field, args := range map[string][]string{
		"--address": {"--name", "api"},
		"--name":    {"--name", "a b", "--port", "80"},
		"--check":   {"--name", "api", "--address", "h", "--check", "http=fine"},
	} {
		r := commandtest.Ctl(t, gateway, "", append([]string{"service", "register"}, args...)...)
		require.Equal(t, 2, r.Code)
		require.Contains(t, r.Stderr, "field: "+field)
	}
}

func TestRegisterFromAFile(t *testing.T) {
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "service.yaml")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	policy := "  failover:\n    - {datacenter: us-west, targets: 3}\n    - {datacenter: eu-central, targets: 2}\n"
	gateway := commandtest.Federation(t)
	r := commandtest.Ctl(t, gateway, "", "service", "register", "--file",
		write("service:\n  name: payment-api\n  datacenter: us-east\n  address: 10.0.0.7\n  checks: [{tcp: '10.0.0.7:80'}]\n"+policy), "--check", "tcp=passing")
	require.Zero(t, r.Code, r.Stderr)
	require.Equal(t, "registered payment-api (payment-api) in us-east\n", r.Stdout)
	commandtest.Same(t, &registryv1.SetFailoverPolicyRequest{Policy: &registryv1.FailoverPolicy{Service: "payment-api", Failover: []*registryv1.FailoverTarget{
		{Datacenter: "us-west", Targets: 3}, {Datacenter: "eu-central", Targets: 2},
	}}}, konsultest.Last[*registryv1.SetFailoverPolicyRequest](gateway))

	r = commandtest.Ctl(t, gateway, "", "service", "register", "--file", write("service: {name: stranded, address: h, failover: [{datacenter: us-west}]}"))
	require.Equal(t, 1, r.Code)
	require.Contains(t, r.Stderr, "the instance is registered, but")

	before := len(gateway.Requests())
	for field, text := range map[string]string{
		"service.colour":          "service: {name: a, address: h, colour: red}",
		"service.address":         "service: {name: a}",
		"service.checks[0]":       "service: {name: a, address: h, checks: [{tcp: 'h:1'}]}",
		"service.datacenter":      "service: {name: a, address: h, datacenter: us-east}",
		"service.failover[0].dat": "service: {name: a, address: h, failover: [{}]}",
	} {
		r := commandtest.Ctl(t, gateway, "", "service", "register", "--datacenter", "us-west", "--file", write(text))
		require.Equal(t, 2, r.Code, r.Stderr)
		require.Contains(t, r.Stderr, "field: "+field)
		require.Contains(t, r.Stderr, "remedy: ")
	}
	require.Equal(t, 2, commandtest.Ctl(t, gateway, "", "service", "register", "--file", "/does/not/exist").Code)
	require.Len(t, gateway.Requests(), before, "a refused definition changes nothing")
}
