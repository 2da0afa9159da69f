package agent_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	agentv1 "konsul.dev/proto/gen/konsul/agent/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	"konsul.dev/services/agent"
	"konsul.dev/services/agent/internal/registrytest"
)

const (
	dc       = "us-east"
	node     = "n1"
	patience = 10 * time.Second

	passing  = registryv1.HealthStatus_HEALTH_STATUS_PASSING
	warning  = registryv1.HealthStatus_HEALTH_STATUS_WARNING
	critical = registryv1.HealthStatus_HEALTH_STATUS_CRITICAL
)

// world is one node with its registry.
type world struct {
	ca       *identitytest.CA
	registry *registrytest.Registry
	dir      string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ca := identitytest.NewCA(t, identitytest.FederationID)
	return &world{ca: ca, registry: registrytest.Start(t, ca.Source(dc, "registry")), dir: t.TempDir()}
}

func (w *world) define(t *testing.T, name, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(w.dir, name), []byte(content), 0o600))
}

func (w *world) config(t *testing.T) agent.Config {
	t.Helper()
	cfg := agent.DefaultConfig()
	cfg.Server.Datacenter, cfg.Server.Node = dc, node
	cfg.Server.DataDir, cfg.Server.SecretFile = t.TempDir(), "unused"
	cfg.Endpoints.Registry = []string{w.registry.Addr()}
	cfg.Agent.Listen = "127.0.0.1:0"
	cfg.Agent.ServicesDir, cfg.Agent.NodeAddress = w.dir, "10.0.0.1"
	cfg.Agent.ReloadInterval = 10 * time.Millisecond
	cfg.Agent.RetryMin, cfg.Agent.RetryMax = 5*time.Millisecond, 50*time.Millisecond
	return cfg
}

type running struct {
	*agent.Service
	telemetry *obs.Telemetry
	api       agentv1.AgentServiceClient
}

func (w *world) run(t *testing.T, change ...func(*agent.Config)) *running {
	t.Helper()
	cfg := w.config(t)
	for _, c := range change {
		c(&cfg)
	}
	r := &running{telemetry: obs.Discard()}
	var err error
	r.Service, err = agent.New(cfg, konsulfx.Process{
		Telemetry: r.telemetry, Identity: w.ca.Source(dc, "agent"),
		Fail: func(err error) { t.Errorf("a loop failed: %v", err) },
	})
	require.NoError(t, err)
	require.NoError(t, r.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, r.Stop(context.Background())) })
	conn, err := rpc.Dial([]string{r.Addr()}, rpc.ClientParams{
		Identity: w.ca.Source(dc, "gateway"), Want: identity.Want{Service: "agent"}, Telemetry: obs.Discard(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	r.api = agentv1.NewAgentServiceClient(conn)
	return r
}

func (r *running) services(t *testing.T) []*agentv1.LocalService {
	t.Helper()
	resp, err := r.api.ListLocalServices(t.Context(), &agentv1.ListLocalServicesRequest{})
	require.NoError(t, err)
	require.Equal(t, node, resp.GetNode())
	return resp.GetServices()
}

func (r *running) synced(t *testing.T) bool {
	t.Helper()
	services := r.services(t)
	return len(services) > 0 && !slices.ContainsFunc(services, func(s *agentv1.LocalService) bool { return !s.GetSynced() })
}

func (r *running) gauge(t *testing.T, name string) float64 {
	t.Helper()
	families, err := r.telemetry.Metrics.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, patience, 5*time.Millisecond, what)
}

// health is a service whose answer can be changed.
func health(t *testing.T) (url string, status *atomic.Int32) {
	t.Helper()
	status = &atomic.Int32{}
	status.Store(http.StatusOK)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) }))
	t.Cleanup(server.Close)
	return server.URL, status
}

func payment(url string) string {
	return fmt.Sprintf(`service:
  name: payment-api
  datacenter: us-east
  port: 8080
  tags: [v1]
  failover:
    - datacenter: us-west
      targets: 3
  checks:
    - http: %s
      interval: 100ms
`, url)
}

func TestRegistersChecksAndFollowsHealth(t *testing.T) {
	w := newWorld(t)
	url, status := health(t)
	w.define(t, "payment.yaml", payment(url))
	r := w.run(t)
	eventually(t, "passing", func() bool { return w.registry.Status("payment-api", "http") == passing })

	service := w.registry.Service("payment-api")
	require.Equal(t, node, service.GetNode())
	require.Equal(t, "10.0.0.1", service.GetAddress())
	require.Equal(t, uint32(8080), service.GetPort())
	require.Equal(t, []string{"v1"}, service.GetTags())
	require.Equal(t, "10.0.0.1", w.registry.Node(node).GetAddress())
	eventually(t, "policy", func() bool { return w.registry.Policy("payment-api") != nil })
	require.Equal(t, uint32(3), w.registry.Policy("payment-api").GetFailover()[0].GetTargets())
	eventually(t, "ready", func() bool { return r.Ready(t.Context()) == nil })

	status.Store(http.StatusTooManyRequests)
	eventually(t, "warning", func() bool { return w.registry.Status("payment-api", "http") == warning })
	status.Store(http.StatusInternalServerError)
	eventually(t, "critical", func() bool { return w.registry.Status("payment-api", "http") == critical })
	eventually(t, "synced", func() bool { return r.synced(t) })
	require.Equal(t, critical, r.services(t)[0].GetChecks()[0].GetStatus())
	require.Contains(t, r.services(t)[0].GetChecks()[0].GetOutput(), "500")

	problems, err := testutil.GatherAndLint(r.telemetry.Metrics)
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestUnchangedOutcomesAreNotReported(t *testing.T) {
	w := newWorld(t)
	url, status := health(t)
	w.define(t, "payment.yaml", payment(url))
	r := w.run(t)
	eventually(t, "passing", func() bool { return w.registry.Status("payment-api", "http") == passing && r.synced(t) })
	writes := len(w.registry.Calls())
	runs := func() float64 { return testRuns(t, r) }
	before := runs()
	eventually(t, "more runs", func() bool { return runs() >= before+3 })
	require.Len(t, w.registry.Calls(), writes)
	status.Store(http.StatusServiceUnavailable)
	eventually(t, "one report", func() bool { return len(w.registry.Calls()) == writes+1 })
}

func testRuns(t *testing.T, r *running) float64 {
	t.Helper()
	families, err := r.telemetry.Metrics.Gather()
	require.NoError(t, err)
	total := 0.0
	for _, f := range families {
		if f.GetName() == "konsul_agent_check_runs_total" {
			for _, m := range f.GetMetric() {
				total += m.GetCounter().GetValue()
			}
		}
	}
	return total
}

func TestFilesComeChangeAndGo(t *testing.T) {
	w := newWorld(t)
	r := w.run(t)
	eventually(t, "a node without services", func() bool { return w.registry.Node(node) != nil })
	w.define(t, "api.yaml", "service: {name: api, port: 80}")
	eventually(t, "comes", func() bool { return w.registry.Service("api").GetPort() == 80 })
	w.define(t, "api.yaml", "service: {name: api, port: 81}")
	eventually(t, "changes", func() bool { return w.registry.Service("api").GetPort() == 81 })
	eventually(t, "synced", func() bool { return r.synced(t) })

	w.define(t, "api.yaml", "service: {name: api, prot: 82}")
	eventually(t, "counted", func() bool { return r.gauge(t, "konsul_agent_definition_errors") == 1 })
	eventually(t, "the last good version stays", func() bool { return r.synced(t) && w.registry.Service("api").GetPort() == 81 })
	w.define(t, "api.yaml", "service: {name: api, port: 83}")
	eventually(t, "mended", func() bool { return w.registry.Service("api").GetPort() == 83 })
	eventually(t, "no longer counted", func() bool { return r.gauge(t, "konsul_agent_definition_errors") == 0 })

	require.NoError(t, os.Remove(filepath.Join(w.dir, "api.yaml")))
	eventually(t, "goes", func() bool { return w.registry.Service("api") == nil })
}

func TestABadFileAtTheStartRemovesNothing(t *testing.T) {
	w := newWorld(t)
	w.define(t, "api.yaml", "service: {name: api}")
	first := w.run(t)
	eventually(t, "registered", func() bool { return w.registry.Service("api") != nil })
	require.NoError(t, first.Stop(t.Context()))
	require.NotNil(t, w.registry.Service("api"), "a stop leaves the registrations")

	w.define(t, "api.yaml", "service: [")
	w.define(t, "web.yaml", "service: {name: web}")
	w.run(t)
	eventually(t, "the good one is registered", func() bool { return w.registry.Service("web") != nil })
	require.NotNil(t, w.registry.Service("api"))
	require.NoError(t, os.Remove(filepath.Join(w.dir, "api.yaml")))
	eventually(t, "removed once the file is gone", func() bool { return w.registry.Service("api") == nil })
}

func TestComparisonMendsWhatOthersDid(t *testing.T) {
	w := newWorld(t)
	w.define(t, "a.yaml", "service: {name: a, checks: [{ttl: 1h}]}")
	w.define(t, "b.yaml", "service: {name: b}")
	r := w.run(t, func(c *agent.Config) { c.Agent.SyncInterval = 100 * time.Millisecond })
	eventually(t, "registered", func() bool { return w.registry.Service("a") != nil && w.registry.Service("b") != nil })
	_, err := r.api.ReportCheck(t.Context(), &agentv1.ReportCheckRequest{ServiceId: "a", CheckId: "ttl", Status: passing})
	require.NoError(t, err)
	eventually(t, "passing", func() bool { return w.registry.Status("a", "ttl") == passing })

	w.registry.Edit(func(services map[string]*registryv1.Service, checks map[string][]*registryv1.Check) {
		checks["a"][0].Status = critical
		delete(services, "b")
		marked := services["a"].GetMeta()
		services["orphan"] = &registryv1.Service{Id: "orphan", Name: "orphan", Node: node, Meta: marked}
		services["by-hand"] = &registryv1.Service{Id: "by-hand", Name: "by-hand", Node: node}
		services["elsewhere"] = &registryv1.Service{Id: "elsewhere", Name: "orphan", Node: "n2", Meta: marked}
	})
	eventually(t, "mended", func() bool {
		return w.registry.Status("a", "ttl") == passing && w.registry.Service("b") != nil && w.registry.Service("orphan") == nil
	})
	require.NotNil(t, w.registry.Service("by-hand"))
	require.NotNil(t, w.registry.Service("elsewhere"))
}

func TestRegistryAwayThenBack(t *testing.T) {
	w := newWorld(t)
	w.registry.Down()
	url, status := health(t)
	w.define(t, "payment.yaml", payment(url))
	r := w.run(t)
	eventually(t, "checked without a registry", func() bool {
		services := r.services(t)
		return len(services) == 1 && services[0].GetChecks()[0].GetStatus() == passing && !services[0].GetSynced()
	})
	require.Error(t, r.Ready(t.Context()))
	w.registry.Serve(t)
	eventually(t, "registered", func() bool { return w.registry.Status("payment-api", "http") == passing && r.synced(t) })

	w.registry.Down()
	status.Store(http.StatusInternalServerError)
	eventually(t, "unsynced", func() bool { return !r.synced(t) })
	w.registry.Serve(t)
	eventually(t, "reported", func() bool { return w.registry.Status("payment-api", "http") == critical && r.synced(t) })
}

func TestOneRefusedServiceDoesNotHoldUpTheOthers(t *testing.T) {
	w := newWorld(t)
	w.define(t, "a.yaml", "service: {name: a}")
	w.define(t, "b.yaml", "service: {name: b}")
	w.registry.Edit(func(services map[string]*registryv1.Service, _ map[string][]*registryv1.Check) {
		services["a"] = &registryv1.Service{Id: "a", Name: "other", Node: "n2"}
	})
	w.registry.Refuse("policy c", fault.New(fault.Unavailable, "NO_PRIMARY", "the primary is away"))
	w.define(t, "c.yaml", "service: {name: c, failover: [{datacenter: us-west}]}")
	w.define(t, "d.yaml", "service: {name: d}")
	w.registry.Refuse("register d", fault.Invalid("service.meta", "too much"))
	r := w.run(t)
	eventually(t, "the others", func() bool { return w.registry.Service("b") != nil && w.registry.Service("c") != nil })
	eventually(t, "ready all the same", func() bool { return r.Ready(t.Context()) == nil })
	require.Equal(t, "n2", w.registry.Service("a").GetNode(), "an id of another node is left to it")
	require.Nil(t, w.registry.Service("d"))
	w.registry.Refuse("policy c", nil)
	w.registry.Refuse("register d", nil)
	eventually(t, "tried again", func() bool { return w.registry.Policy("c") != nil && w.registry.Service("d") != nil })
}

func TestPoliciesOfOthersAreOverwrittenOnceOnly(t *testing.T) {
	w := newWorld(t)
	w.define(t, "c.yaml", "service: {name: c, failover: [{datacenter: us-west}]}")
	w.run(t, func(c *agent.Config) { c.Agent.SyncInterval = 50 * time.Millisecond })
	eventually(t, "written", func() bool { return w.registry.Policy("c") != nil })
	theirs := &registryv1.FailoverPolicy{Service: "c", Failover: []*registryv1.FailoverTarget{{Datacenter: "eu-central"}}}
	w.registry.SetPolicyOf(theirs)
	w.registry.Edit(func(services map[string]*registryv1.Service, _ map[string][]*registryv1.Check) { delete(services, "c") })
	eventually(t, "a comparison later", func() bool { return w.registry.Service("c") != nil })
	w.registry.Edit(func(services map[string]*registryv1.Service, _ map[string][]*registryv1.Check) { delete(services, "c") })
	eventually(t, "and another", func() bool { return w.registry.Service("c") != nil })
	require.Equal(t, "eu-central", w.registry.Policy("c").GetFailover()[0].GetDatacenter())
	w.define(t, "c.yaml", "service: {name: c, failover: [{datacenter: us-west, targets: 2}]}")
	eventually(t, "a changed file is written", func() bool { return w.registry.Policy("c").GetFailover()[0].GetTargets() == 2 })
}

func TestRestartKeepsTheStatus(t *testing.T) {
	w := newWorld(t)
	w.define(t, "a.yaml", "service: {name: a, checks: [{ttl: 1h}]}")
	first := w.run(t)
	eventually(t, "new checks are critical", func() bool { return w.registry.Status("a", "ttl") == critical })
	_, err := first.api.ReportCheck(t.Context(), &agentv1.ReportCheckRequest{ServiceId: "a", CheckId: "ttl", Status: passing})
	require.NoError(t, err)
	eventually(t, "passing", func() bool { return w.registry.Status("a", "ttl") == passing })
	require.NoError(t, first.Stop(t.Context()))
	second := w.run(t)
	eventually(t, "compared", func() bool { return second.Ready(t.Context()) == nil && second.synced(t) })
	require.Equal(t, passing, w.registry.Status("a", "ttl"))
}

func TestBadReports(t *testing.T) {
	r := newWorld(t).run(t)
	_, err := r.api.ReportCheck(t.Context(), &agentv1.ReportCheckRequest{ServiceId: "a", CheckId: "ttl"})
	require.Equal(t, fault.InvalidArgument, fault.CodeOf(err))
	_, err = r.api.ReportCheck(t.Context(), &agentv1.ReportCheckRequest{ServiceId: "a", CheckId: "ttl", Status: passing})
	require.Equal(t, fault.NotFound, fault.CodeOf(err))
}

func TestCheckConfigReadsTheDefinitions(t *testing.T) {
	w := newWorld(t)
	cfg := w.config(t)
	cfg.Normalize()
	require.NoError(t, cfg.CheckConfig())
	w.define(t, "a.yaml", "service: {name: A, prot: 1}")
	w.define(t, "b.yaml", "service: {name: b, datacenter: us-west}")
	err := cfg.CheckConfig()
	for _, part := range []string{"a.yaml: service.name", "a.yaml: service.prot", "b.yaml: service.datacenter"} {
		require.ErrorContains(t, err, part)
	}
	require.NoError(t, cfg.Validate(), "a bad definition is no reason not to start")
	cfg.Agent.ServicesDir = filepath.Join(w.dir, "none")
	require.ErrorContains(t, cfg.CheckConfig(), "services_dir")
	require.Equal(t, 1, strings.Count(cfg.CheckConfig().Error(), "services_dir"))
}

func TestReloadReadsTheDefinitionsAtOnce(t *testing.T) {
	w := newWorld(t)
	r := w.run(t, func(cfg *agent.Config) { cfg.Agent.ReloadInterval = time.Hour })
	w.define(t, "api.json", `{"services": [{"name": "api"}, {"name": "web"}]}`)
	what, err := r.Reload(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"service definitions (2)"}, what)
	eventually(t, "registered", func() bool { return w.registry.Service("api") != nil && w.registry.Service("web") != nil })
}

func TestCheckConfigNamesWhatIsNotRead(t *testing.T) {
	w := newWorld(t)
	cfg := w.config(t)
	cfg.Normalize()
	w.define(t, "a.yaml", "service: {name: a}")
	require.Empty(t, cfg.ConfigNotes())
	w.define(t, "web.txt", "x")
	require.NoError(t, cfg.CheckConfig(), "it is no mistake")
	require.Len(t, cfg.ConfigNotes(), 1)
	require.Contains(t, cfg.ConfigNotes()[0], "web.txt")
	w.define(t, "web.hcl", `service { name = "web" }`)
	require.ErrorContains(t, cfg.CheckConfig(), "web.hcl: HCL is not read yet")
}
