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
	require.Equal(t, []*servicedef.Definition{{
		Name: "payment-api", ID: "payment-api-1", Datacenter: "us-east", Address: "127.0.0.1", Port: 8080,
		Tags: []string{"v1", "2"}, Meta: map[string]string{"team": "payments", "build": "17"},
		Checks: []servicedef.Check{
			{ID: "health", Name: "answers", HTTP: "http://127.0.0.1:8080/health", Interval: 2 * time.Second, Timeout: time.Second},
			{ID: "tcp", TCP: "127.0.0.1:8080", Interval: servicedef.DefaultInterval, Timeout: servicedef.DefaultTimeout},
			{ID: "ttl", TTL: 30 * time.Second},
		},
		Failover: []servicedef.Target{{Datacenter: "us-west", Targets: 3}, {Datacenter: "eu-central"}},
	}}, got)
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
	require.Equal(t, "payment-api", got[0].ID, "the id defaults to the name")
	require.Equal(t, []servicedef.Target{{Datacenter: "us-west", Targets: 3}, {Datacenter: "eu-central", Targets: 2}}, got[0].Failover)
}

func TestTimeoutDoesNotOutlastTheIntervalByDefault(t *testing.T) {
	got, err := servicedef.Parse([]byte("service: {name: a, checks: [{tcp: 'x:1', interval: 1s}]}"))
	require.NoError(t, err)
	require.Equal(t, time.Second, got[0].Checks[0].Timeout)
}

func TestProblemsNameTheirPlace(t *testing.T) {
	for name, c := range map[string]struct{ text, field string }{
		"empty":               {"", ""},
		"comment only":        {"# nothing\n", ""},
		"no yaml":             {"service: [", ""},
		"no mapping":          {"- a", ""},
		"second document":     {"service: {name: a}\n---\nservice: {name: b, prot: 1}", "document 2: service.prot"},
		"second is a list":    {"service: {name: a}\n---\n[b]", ""},
		"second in a list":    {"services: [{name: a}, {name: b, prot: 1}]", "services[1].prot"},
		"an id twice":         {"services: [{name: a}, {name: a}]", "services[1].id"},
		"id of a document":    {"service: {name: a}\n---\nservice: {name: a}", "document 2: service.id"},
		"empty list":          {"services: []", "services"},
		"list is a mapping":   {"services: {name: a}", "services"},
		"no IPv4 address":     {"service: {name: a, address: 256.256.256.256}", "service.address"},
		"every address":       {"service: {name: a, address: 0.0.0.0}", "service.address"},
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
		definitions, err := servicedef.Parse(data)
		if err != nil {
			require.Equal(t, fault.InvalidArgument, fault.CodeOf(err))
			return
		}
		require.NotEmpty(t, definitions)
		for _, d := range definitions {
			sound(t, d)
		}
	})
}

func sound(t *testing.T, d *servicedef.Definition) {
	t.Helper()
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
}

func TestSeveralServicesAreReadFromOneFile(t *testing.T) {
	for name, text := range map[string]string{
		"list":             "services: [{name: a}, {name: b}]",
		"documents":        "service: {name: a}\n---\nservice: {name: b}\n",
		"an empty one":     "---\nservice: {name: a}\n---\n---\nservice: {name: b}\n---\n",
		"list and service": "services: [{name: a}]\n---\nservice: {name: b}",
		"JSON with tabs":   "{\n\t\"services\": [\n\t\t{\"name\": \"a\"},\r\n\t\t{\"name\": \"b\", \"port\": 80}\n\t]\n}\n",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := servicedef.Parse([]byte(text))
			require.NoError(t, err)
			require.Len(t, got, 2)
			require.Equal(t, "a", got[0].ID)
			require.Equal(t, "b", got[1].ID)
		})
	}
}

func TestAFileOfSeveralIsNoOneDefinition(t *testing.T) {
	path := filepath.Join(t.TempDir(), "all.json")
	require.NoError(t, os.WriteFile(path, []byte(`{"services": [{"name": "a"}, {"name": "b"}]}`), 0o600))
	_, err := servicedef.Load(path)
	f, _ := fault.As(err)
	require.Equal(t, "services", f.Field())
}

func TestHCLSaysThatItIsNotReadYet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.hcl")
	require.NoError(t, os.WriteFile(path, []byte(`service { name = "web" }`), 0o600))
	_, err := servicedef.Load(path)
	f, _ := fault.As(err)
	require.Contains(t, f.Message(), "HCL")
	require.Contains(t, f.Remedy(), "YAML")
}

func TestAddressesGetTheirOneForm(t *testing.T) {
	got, err := servicedef.Parse([]byte("service: {name: a, address: '2001:DB8:0::1'}"))
	require.NoError(t, err)
	require.Equal(t, "2001:db8::1", got[0].Address)
}
