package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	failoverrouterv1 "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"
	"konsul.dev/tests/framework"
)

// Generous on purpose: two busy cores run 21 processes here, and no claim is about time.
const soon = 45 * time.Second

// TestStory plays the walk of the federation, from registration to the loss and return of the
// primary, in both process layouts.
func TestStory(t *testing.T) {
	for _, layout := range []framework.Layout{framework.Single, framework.PerService} {
		t.Run(string(layout), func(t *testing.T) {
			lab := framework.StartLab(t, framework.LabOptions{Layout: layout})
			s := story{t: t, access: map[string]framework.Access{}}
			for _, dc := range framework.Datacenters() {
				s.access[dc] = lab.Access(dc)
			}
			s.registersAndDiscovers()
			s.sharesGlobalKeysAndKeepsLocalOnes()
			s.survivesTheLossOf(framework.USEast, func() { lab.Kill(framework.USEast) })
			s.routesAround(framework.USEast, "http://"+lab.Address(framework.USWest)+":8553")
			lab.Start(framework.USEast)
			s.welcomesBack(framework.USEast)
		})
	}
}

// story is the common plot; the lab and compose tell it on different stages.
type story struct {
	t      *testing.T
	access map[string]framework.Access
}

func (s story) ctl(dc string, args ...string) framework.Result { return s.access[dc].CTL(s.t, args...) }

func (s story) registersAndDiscovers() {
	for i, dc := range framework.Datacenters() {
		s.access[dc].MustCTL(s.t, "service", "register", "--name", "orders", "--id", "orders-"+dc,
			"--address", "127.0.0.1", "--port", fmt.Sprint(9000+i), "--tag", "v1")
	}
	local := s.instances(framework.USWest, "orders")
	require.Equal(s.t, []string{"orders-us-west"}, local, "the local query answers the own datacenter only")
	require.Equal(s.t, []string{"orders-eu-central"}, s.instances(framework.USWest, "orders", "--datacenter", framework.EUCentral))

	framework.Eventually(s.t, soon, "all datacenters answer, nearest first", func() error {
		answer := s.resolve(framework.USWest, "orders", "--all-datacenters")
		if len(answer.GetEndpoints()) != 3 {
			return fmt.Errorf("%d endpoints: %v", len(answer.GetEndpoints()), answer.GetDatacenters())
		}
		if first := answer.GetEndpoints()[0]; first.GetDatacenter() != framework.USWest {
			return fmt.Errorf("first is %s", first.GetDatacenter())
		}
		for _, e := range answer.GetEndpoints()[1:] {
			if e.GetRoundTrip().AsDuration() <= 0 {
				return fmt.Errorf("round trip to %s is not measured yet", e.GetDatacenter())
			}
		}
		if !slices.IsSortedFunc(answer.GetEndpoints(), func(a, b *failoverrouterv1.Endpoint) int {
			return int(a.GetRoundTrip().AsDuration() - b.GetRoundTrip().AsDuration())
		}) {
			return fmt.Errorf("not sorted by round trip: %v", answer.GetEndpoints())
		}
		return nil
	})
}

func (s story) sharesGlobalKeysAndKeepsLocalOnes() {
	s.access[framework.USEast].MustCTL(s.t, "kv", "set", "--global", "config/app/version", "v2.0")
	s.access[framework.USWest].MustCTL(s.t, "kv", "set", "--global", "config/feature_flags/new_ui", "true")
	s.access[framework.USEast].MustCTL(s.t, "kv", "set", "--datacenter", framework.USEast, "config/local/db_url", "postgresql://us-db:5432/app")
	s.access[framework.USEast].MustCTL(s.t, "kv", "set", "--datacenter", framework.EUCentral, "config/local/db_url", "postgresql://eu-db:5432/app")

	for _, dc := range framework.Datacenters() {
		s.reads(framework.USWest, "v2.0", "config/app/version", "--datacenter", dc)
		s.reads(dc, "v2.0", "config/app/version")
		s.reads(dc, "true", "config/feature_flags/new_ui")
	}
	s.reads(framework.USEast, "postgresql://us-db:5432/app", "config/local/db_url")
	s.reads(framework.EUCentral, "postgresql://eu-db:5432/app", "config/local/db_url")
	missing := s.ctl(framework.USWest, "kv", "get", "config/local/db_url")
	require.Equal(s.t, 3, missing.Code, "a local key must not reach another datacenter: %s", missing.Stdout)

	// A datacenter may override a global default for itself.
	s.access[framework.EUCentral].MustCTL(s.t, "kv", "set", "config/app/version", "v2.1-eu")
	s.reads(framework.EUCentral, "v2.1-eu", "config/app/version")
	s.reads(framework.EUCentral, "v2.0", "config/app/version", "--global")
	s.reads(framework.USEast, "v2.0", "config/app/version")
}

func (s story) survivesTheLossOf(lost string, kill func()) {
	kill()
	for _, dc := range framework.Datacenters() {
		if dc == lost {
			continue
		}
		s.access[dc].MustCTL(s.t, "kv", "set", "alone", "still here")
		s.reads(dc, "still here", "alone")
		s.reads(dc, "true", "config/feature_flags/new_ui")
		s.access[dc].MustCTL(s.t, "service", "register", "--name", "late", "--id", "late-"+dc, "--address", "127.0.0.1", "--port", "9100")
		require.Equal(s.t, []string{"late-" + dc}, s.instances(dc, "late"))
		framework.Eventually(s.t, soon, dc+" sees that "+lost+" failed", func() error {
			return s.state(dc, lost, wangossipv1.DatacenterState_DATACENTER_STATE_FAILED)
		})
		refused := s.ctl(dc, "kv", "set", "--global", "config/app/version", "v3")
		require.NotZero(s.t, refused.Code, "no datacenter may accept a global write while the primary is gone")
		require.Contains(s.t, refused.Stderr, lost)
	}
	s.reads(framework.USWest, "v2.0", "config/app/version")
}

// routesAround asks for payment-api as a caller of the lost datacenter would, and through the
// proxy.
func (s story) routesAround(lost, proxy string) {
	framework.Eventually(s.t, soon, "payment-api fails over to us-west", func() error {
		result := s.ctl(framework.EUCentral, "service", "get", "payment-api", "--datacenter", lost, "--failover", "us-west,eu-central", "-o", "json")
		if result.Code != 0 {
			return fmt.Errorf("exit %d: %s", result.Code, result.Stderr)
		}
		var answer failoverrouterv1.ResolveResponse
		if err := protojson.Unmarshal([]byte(result.Stdout), &answer); err != nil {
			return err
		}
		if len(answer.GetEndpoints()) == 0 || answer.GetEndpoints()[0].GetDatacenter() != framework.USWest || !answer.GetFailedOver() {
			return fmt.Errorf("answer %s", result.Stdout)
		}
		return nil
	})
	// With its own payment-api gone too, us-west's proxy must answer from the last datacenter
	// standing. The agent registers it again with its next comparison, so it is deregistered as
	// often as need be.
	framework.Eventually(s.t, soon, "the proxy answers from eu-central", func() error {
		for _, id := range s.instances(framework.USWest, "payment-api") {
			s.access[framework.USWest].MustCTL(s.t, "service", "deregister", id)
		}
		dc, body, err := viaProxy(s.t, proxy, "payment-api")
		if err != nil {
			return err
		}
		if dc != framework.EUCentral {
			return fmt.Errorf("%s answered %s", dc, body)
		}
		return nil
	})
}

func (s story) welcomesBack(dc string) {
	for _, other := range framework.Datacenters() {
		framework.Eventually(s.t, 2*soon, other+" sees "+dc+" alive again", func() error {
			return s.state(other, dc, wangossipv1.DatacenterState_DATACENTER_STATE_ALIVE)
		})
	}
	require.Equal(s.t, []string{"orders-" + dc}, s.instances(dc, "orders"), "nothing acknowledged is lost")
	s.reads(dc, "v2.0", "config/app/version")
	framework.Eventually(s.t, soon, "global writes are accepted again", func() error {
		if r := s.ctl(framework.USWest, "kv", "set", "--global", "config/app/version", "v3.0"); r.Code != 0 {
			return fmt.Errorf("exit %d: %s", r.Code, r.Stderr)
		}
		return nil
	})
	s.reads(framework.EUCentral, "v3.0", "config/app/version", "--global")
}

func (s story) reads(dc, want string, args ...string) {
	s.t.Helper()
	framework.Eventually(s.t, soon, fmt.Sprintf("kv get %v in %s answers %q", args, dc, want), func() error {
		result := s.ctl(dc, append([]string{"kv", "get", "--raw"}, args...)...)
		if got := strings.TrimSuffix(result.Stdout, "\n"); result.Code != 0 || got != want {
			return fmt.Errorf("exit %d, %q %s", result.Code, got, result.Stderr)
		}
		return nil
	})
}

func (s story) instances(dc, service string, args ...string) []string {
	s.t.Helper()
	out := s.access[dc].MustCTL(s.t, append([]string{"service", "get", service, "-o", "json"}, args...)...)
	var answer registryv1.QueryServiceResponse
	require.NoError(s.t, protojson.Unmarshal([]byte(out), &answer), out)
	var ids []string
	for _, instance := range answer.GetInstances() {
		ids = append(ids, instance.GetService().GetId())
	}
	return ids
}

func (s story) resolve(dc, service string, args ...string) *failoverrouterv1.ResolveResponse {
	s.t.Helper()
	out := s.access[dc].MustCTL(s.t, append([]string{"service", "get", service, "-o", "json"}, args...)...)
	var answer failoverrouterv1.ResolveResponse
	require.NoError(s.t, protojson.Unmarshal([]byte(out), &answer), out)
	return &answer
}

// state returns nil when dc sees other in the wanted state.
func (s story) state(dc, other string, want wangossipv1.DatacenterState) error {
	result := s.ctl(dc, "datacenter", "list", "-o", "json")
	if result.Code != 0 {
		return fmt.Errorf("exit %d: %s", result.Code, result.Stderr)
	}
	var answer wangossipv1.ListDatacentersResponse
	if err := protojson.Unmarshal([]byte(result.Stdout), &answer); err != nil {
		return err
	}
	for _, d := range answer.GetDatacenters() {
		if d.GetName() == other && d.GetState() == want {
			return nil
		}
	}
	return fmt.Errorf("%s sees %v", dc, answer.GetDatacenters())
}

// viaProxy calls a service through a failover-router's HTTP face and returns which datacenter
// served.
func viaProxy(t *testing.T, proxy, service string) (dc, body string, err error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, proxy+"/", http.NoBody)
	require.NoError(t, err)
	request.Host = service
	client := http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		return "", "", err
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return "", "", err
	}
	var answer struct {
		Datacenter string `json:"datacenter"`
	}
	if err := json.Unmarshal(content, &answer); err != nil {
		return "", "", fmt.Errorf("%s: %s: %w", response.Status, content, err)
	}
	if header := response.Header.Get("X-Konsul-Datacenter"); header != answer.Datacenter {
		return "", "", fmt.Errorf("the proxy says %q, the service says %q: %s", header, answer.Datacenter, content)
	}
	return answer.Datacenter, string(content), nil
}
