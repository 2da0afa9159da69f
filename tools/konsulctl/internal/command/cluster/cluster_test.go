package cluster_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/konsul/konsultest"
	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

func TestAClusterIsHealthyOnlyWhenItIs(t *testing.T) {
	server := func(state string) *registryv1.ServerState {
		return &registryv1.ServerState{Id: "n", State: state, Voter: true}
	}
	whole := []*registryv1.ServerState{server("leader"), server("follower"), server("follower")}
	short := []*registryv1.ServerState{server("leader"), server("follower"), server("unreachable")}
	for name, c := range map[string]struct {
		answer *registryv1.ClusterStatusResponse
		state  string
		code   int
		says   string
	}{
		"whole": {&registryv1.ClusterStatusResponse{Healthy: true, Available: true, Leader: "n", Servers: whole}, "healthy", 0, ""},
		"a warning": {&registryv1.ClusterStatusResponse{Healthy: true, Available: true, Servers: whole, Problems: []*registryv1.HealthProblem{
			{Reason: "CLOCK_DIFFERENCE", Message: "eu-central's clock is 90s ahead", Remedy: "look at its time source", Warning: true},
		}}, "healthy", 0, "Warning     eu-central's clock is 90s ahead; look at its time source"},
		"a server down": {&registryv1.ClusterStatusResponse{Available: true, Servers: short, Problems: []*registryv1.HealthProblem{
			{Reason: "SERVER_DOWN", Message: "n3 does not answer", Remedy: "start it"},
		}}, "degraded", 1, "Problem     n3 does not answer; start it"},
		"a server down, says an older one": {&registryv1.ClusterStatusResponse{Healthy: true, Servers: short}, "degraded", 1, ""},
		"no leader": {&registryv1.ClusterStatusResponse{Servers: whole, Problems: []*registryv1.HealthProblem{
			{Reason: "NO_LEADER", Message: "nobody leads"},
		}}, "unavailable", 5, "Problem     nobody leads\n"},
		"no majority, says an older one": {&registryv1.ClusterStatusResponse{Servers: short}, "unavailable", 5, ""},
	} {
		t.Run(name, func(t *testing.T) {
			gateway := commandtest.Federation(t)
			konsultest.On(gateway, func(r *registryv1.ClusterStatusRequest) (*registryv1.ClusterStatusResponse, error) {
				answer := proto.CloneOf(c.answer)
				answer.Datacenter = "us-west"
				return answer, nil
			})
			for _, args := range [][]string{{"cluster", "status"}, {"cluster", "status", "--all-datacenters"}} {
				r := commandtest.Ctl(t, gateway, "", args...)
				require.Equal(t, c.code, r.Code, r.Stderr)
				require.Contains(t, r.Stdout, c.state)
				if len(args) == 2 {
					require.Contains(t, r.Stdout, c.says)
				}
				if c.code != 0 {
					require.Contains(t, r.Stderr, "us-west is "+c.state)
					require.Contains(t, r.Stderr, "  reason: UNHEALTHY\n  remedy: ")
				}
				r = commandtest.Ctl(t, gateway, "", append(args, "-o", "json")...)
				require.Equal(t, c.code, r.Code)
				require.True(t, json.Valid([]byte(r.Stdout)))
			}
		})
	}
}
