package servicedef_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/servicedef"
)

const full = `
service:
  name: payment-api
  id: payment-api-1
  datacenter: us-east
  address: 127.0.0.1
  port: 8080
  tags: [v1, "2"]
  meta: {team: payments, build: 17}
  checks:
    - id: health
      name: answers
      http: http://127.0.0.1:8080/health
      interval: 2s
      timeout: 1s
    - tcp: 127.0.0.1:8080
    - ttl: 30s
  failover:
    - datacenter: us-west
      targets: 3
    - datacenter: eu-central
`

func TestEveryKeyIsRead(t *testing.T) {
	got, err := servicedef.Parse([]byte(full))
	require.NoError(t, err)
	require.Equal(t, &servicedef.Definition{
		Name: "payment-api", ID: "payment-api-1", Datacenter: "us-east", Address: "127.0.0.1", Port: 8080,
		Tags: []string{"v1", "2"}, Meta: map[string]string{"team": "payments", "build": "17"},
		Checks: []servicedef.Check{
			{ID: "health", Name: "answers", HTTP: "http://127.0.0.1:8080/health", Interval: 2 * time.Second, Timeout: time.Second},
			{ID: "tcp", TCP: "127.0.0.1:8080", Interval: servicedef.DefaultInterval, Timeout: servicedef.DefaultTimeout},
			{ID: "ttl", TTL: 30 * time.Second},
		},
		Failover: []servicedef.Target{{Datacenter: "us-west", Targets: 3}, {Datacenter: "eu-central"}},
	}, got)
}

func TestTheADRsDefinitionIsRead(t *testing.T) {
	got, err := servicedef.Parse([]byte(`
# Service with failover configuration
service:
  name: payment-api
  datacenter: us-east
  failover:
    - datacenter: us-west
      targets: 3  # Failover to 3 instances
    - datacenter: eu-central
      targets: 2
`))
	require.NoError(t, err)
	require.Equal(t, "payment-api", got.ID, "the id defaults to the name")
	require.Equal(t, []servicedef.Target{{Datacenter: "us-west", Targets: 3}, {Datacenter: "eu-central", Targets: 2}}, got.Failover)
}

func TestTimeoutDoesNotOutlastTheIntervalByDefault(t *testing.T) {
	got, err := servicedef.Parse([]byte("service: {name: a, checks: [{tcp: 'x:1', interval: 1s}]}"))
	require.NoError(t, err)
	require.Equal(t, time.Second, got.Checks[0].Timeout)
}

func TestProblemsNameTheirPlace(t *testing.T) {
	for name, c := range map[string]struct{ text, field string }{
		"empty":               {"", ""},
		"comment only":        {"# nothing\n", ""},
		"no yaml":             {"service: [", ""},
		"no mapping":          {"- a", ""},
		"two documents":       {"service: {name: a}\n---\nservice: {name: b}", ""},
		"no service":          {"{}", "service"},
		"foreign root key":    {"service: {name: a}\nservices: {}", "services"},
		"service is a list":   {"service: [a]", "service"},
		"no name":             {"service: {port: 1}", "service.name"},
		"null name":           {"service: {name: }", "service.name"},
		"upper-case name":     {"service: {name: Api}", "service.name"},
		"name is a list":      {"service: {name: [a]}", "service.name"},
		"unknown key":         {"service: {name: a, prot: 80}", "service.prot"},
		"key twice":           {"service: {name: a, port: 1, port: 2}", "service.port"},
		"slash in id":         {"service: {name: a, id: a/b}", "service.id"},
		"datacenter":          {"service: {name: a, datacenter: US East}", "service.datacenter"},
		"address with port":   {"service: {name: a, address: 'h:80'}", "service.address"},
		"port word":           {"service: {name: a, port: http}", "service.port"},
		"port zero":           {"service: {name: a, port: 0}", "service.port"},
		"port too large":      {"service: {name: a, port: 65536}", "service.port"},
		"tags is no list":     {"service: {name: a, tags: v1}", "service.tags"},
		"empty tag":           {"service: {name: a, tags: [v1, '']}", "service.tags[1]"},
		"meta is a list":      {"service: {name: a, meta: [k]}", "service.meta"},
		"nested meta":         {"service: {name: a, meta: {k: {l: m}}}", "service.meta.k"},
		"check without kind":  {"service: {name: a, checks: [{id: x}]}", "service.checks[0]"},
		"check of two kinds":  {"service: {name: a, checks: [{tcp: 'h:1', ttl: 3s}]}", "service.checks[0]"},
		"check is a word":     {"service: {name: a, checks: [http]}", "service.checks[0]"},
		"misspelt interval":   {"service: {name: a, checks: [{tcp: 'h:1', intervall: 2s}]}", "service.checks[0].intervall"},
		"interval no unit":    {"service: {name: a, checks: [{tcp: 'h:1', interval: 2}]}", "service.checks[0].interval"},
		"interval too short":  {"service: {name: a, checks: [{tcp: 'h:1', interval: 1ms}]}", "service.checks[0].interval"},
		"url without host":    {"service: {name: a, checks: [{http: '/health'}]}", "service.checks[0].http"},
		"ftp url":             {"service: {name: a, checks: [{http: 'ftp://h'}]}", "service.checks[0].http"},
		"tcp without port":    {"service: {name: a, checks: [{tcp: h}]}", "service.checks[0].tcp"},
		"ttl with interval":   {"service: {name: a, checks: [{ttl: 3s, interval: 1s}]}", "service.checks[0].interval"},
		"check id twice":      {"service: {name: a, checks: [{ttl: 3s}, {ttl: 4s}]}", "service.checks[1].id"},
		"failover no dc":      {"service: {name: a, failover: [{targets: 1}]}", "service.failover[0].datacenter"},
		"failover negative":   {"service: {name: a, failover: [{datacenter: b, targets: -1}]}", "service.failover[0].targets"},
		"failover dc twice":   {"service: {name: a, failover: [{datacenter: b}, {datacenter: b}]}", "service.failover[1].datacenter"},
		"alias":               {"service: {name: &n a, tags: *n}", "service.tags"},
		"control in tag":      {"service: {name: a, tags: [\"a\\nb\"]}", "service.tags[0]"},
		"mapping for a check": {"service: {name: a, checks: {tcp: 'h:1'}}", "service.checks"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := servicedef.Parse([]byte(c.text))
			require.Error(t, err)
			f, ok := fault.As(err)
			require.True(t, ok)
			require.Equal(t, fault.InvalidArgument, f.Code())
			require.Equal(t, c.field, f.Field(), err.Error())
		})
	}
}

func TestAllProblemsAreReportedAtOnce(t *testing.T) {
	_, err := servicedef.Parse([]byte("service: {name: A, port: x, colour: red}"))
	for _, field := range []string{"service.name", "service.port", "service.colour"} {
		require.ErrorContains(t, err, field)
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.yaml")
	_, err := servicedef.Load(path)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(path, []byte("service: {}"), 0o600))
	_, err = servicedef.Load(path)
	require.ErrorContains(t, err, "api.yaml")
	require.ErrorContains(t, err, "service.name")
}

func TestADefinitionStaysInItsDatacenter(t *testing.T) {
	d := &servicedef.Definition{Name: "a", Datacenter: "us-east"}
	require.NoError(t, d.CheckDatacenter("us-east"))
	require.ErrorContains(t, d.CheckDatacenter("us-west"), "service.datacenter")
	require.NoError(t, (&servicedef.Definition{Name: "a"}).CheckDatacenter("us-west"))
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte("service: {name: &n a, tags: [*n]}"))
	f.Add([]byte("? [a]\n: b"))
	f.Add([]byte("service: !!binary aGk="))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := servicedef.Parse(data)
		if err != nil {
			require.Equal(t, fault.InvalidArgument, fault.CodeOf(err))
			return
		}
		require.NotEmpty(t, d.Name)
		require.NotEmpty(t, d.ID)
		for _, c := range d.Checks {
			require.NotEmpty(t, c.ID)
			if c.Kind() == "ttl" {
				require.GreaterOrEqual(t, c.TTL, servicedef.MinDuration)
			} else {
				require.GreaterOrEqual(t, c.Interval, servicedef.MinDuration)
				require.GreaterOrEqual(t, c.Timeout, servicedef.MinDuration)
			}
		}
	})
}
