package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/tests/framework"
)

const (
	statusPassing  = registryv1.HealthStatus_HEALTH_STATUS_PASSING
	statusCritical = registryv1.HealthStatus_HEALTH_STATUS_CRITICAL
	// exitNotFound is konsulctl's exit code when the named thing is missing.
	exitNotFound = 3
)

// tended is a node with an agent and one service, "web".
type tended struct {
	*framework.Site
	t    *testing.T
	args []string
}

func (n tended) run(more ...string) { n.Start("konsul-agent", "agent", 1, append(n.args, more...)...) }

// node returns the node, nil when it is not registered.
func (n tended) node() (*registryv1.GetNodeResponse, error) {
	r := n.Access.CTL(n.t, "node", "get", "web-1", "-o", "json")
	switch r.Code {
	case 0:
	case exitNotFound:
		return nil, nil
	default:
		return nil, fmt.Errorf("exit %d: %s", r.Code, r.Stderr)
	}
	node := &registryv1.GetNodeResponse{}
	return node, protojson.Unmarshal([]byte(r.Stdout), node)
}

// becomes waits until the node, its check of heartbeats and its instance have a status.
func (n tended) becomes(what string, status registryv1.HealthStatus) {
	n.t.Helper()
	framework.Eventually(n.t, soon, what, func() error {
		node, err := n.node()
		if err != nil {
			return err
		}
		alive, web := node.GetChecks(), node.GetInstances()
		if len(alive) != 1 || alive[0].GetId() != "_liveness" || len(web) != 1 || node.GetStatus() != status ||
			alive[0].GetStatus() != status || web[0].GetStatus() != status {
			return fmt.Errorf("%v", node)
		}
		return nil
	})
	query := &registryv1.QueryServiceResponse{}
	reply := n.Access.REST(n.t, http.MethodGet, "/api/v1/health/services/web?passing_only=true", nil, nil)
	require.Equal(n.t, http.StatusOK, reply.Status, "%s", reply.Body)
	require.NoError(n.t, protojson.Unmarshal(reply.Body, query))
	require.Equal(n.t, status == statusPassing, len(query.GetInstances()) == 1, "who asks for passing instances hears of no others")
}

func TestANodeLivesAndDiesWithItsAgent(t *testing.T) {
	s := framework.NewSite(t, framework.USEast, 1)
	s.Open()
	web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(web.Close)
	services := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(services, "web.yaml"),
		fmt.Appendf(nil, "service: {name: web, port: %d, checks: [{http: %q, interval: 200ms}]}", web.Listener.Addr().(*net.TCPAddr).Port, web.URL), 0o600))
	// Comparisons would mend what heartbeats must.
	n := tended{Site: s, t: t, args: []string{
		"--set", "server.node=web-1", "--set", "agent.services_dir=" + services,
		"--set", "agent.liveness_ttl=2s", "--set", "agent.sync_interval=1h",
	}}

	n.run()
	n.becomes("its services run and it beats", statusPassing)
	s.End("agent", syscall.SIGKILL)
	n.becomes("it is dead, and its healthy service with it", statusCritical)
	n.run()
	n.becomes("it is back", statusPassing)

	s.End("r1", syscall.SIGKILL)
	s.Start("konsul-registry", "r1", 1)
	n.becomes("the registry is back", statusPassing)
	// Somebody, or the registry after reap_after, takes the node away while it lives.
	s.Access.MustCTL(t, "node", "deregister", "web-1")
	n.becomes("it is registered again", statusPassing)

	s.End("agent", syscall.SIGTERM)
	n.becomes("who stops and does not come back is dead", statusCritical)
	n.run("--set", "agent.leave_on_stop=true")
	n.becomes("it is back again", statusPassing)
	s.End("agent", syscall.SIGTERM)
	node, err := n.node()
	require.NoError(t, err)
	require.Nil(t, node, "who leaves is gone at once")
}
