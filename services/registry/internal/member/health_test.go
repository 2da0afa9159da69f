package member_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/member"
)

func TestJudgeNamesEveryServerThatIsNotInOrder(t *testing.T) {
	server := func(id, state string, voter bool) *registryv1.ServerState {
		return &registryv1.ServerState{Id: id, Address: id + ":8300", State: state, Voter: voter}
	}
	for name, tc := range map[string]struct {
		leader    string
		servers   []*registryv1.ServerState
		available bool
		want      []string
	}{
		"all well":             {"a", []*registryv1.ServerState{server("a", "leader", true), server("b", "follower", true), server("c", "follower", true)}, true, nil},
		"one down":             {"a", []*registryv1.ServerState{server("a", "leader", true), server("b", "unreachable", true), server("c", "follower", true)}, true, []string{"SERVER_DOWN b"}},
		"one without a vote":   {"a", []*registryv1.ServerState{server("a", "leader", true), server("b", "unreachable", false)}, true, []string{"SERVER_DOWN b"}},
		"one hears nobody":     {"a", []*registryv1.ServerState{server("a", "leader", true), server("b", "candidate", true), server("c", "follower", true)}, true, []string{"SERVER_ASTRAY b"}},
		"majority lost":        {"", []*registryv1.ServerState{server("a", "candidate", true), server("b", "unreachable", true), server("c", "unreachable", true)}, false, []string{"MAJORITY_LOST ", "SERVER_DOWN b", "SERVER_DOWN c"}},
		"two of four":          {"a", []*registryv1.ServerState{server("a", "leader", true), server("b", "follower", true), server("c", "unreachable", true), server("d", "unreachable", true)}, false, []string{"MAJORITY_LOST ", "SERVER_DOWN c", "SERVER_DOWN d"}},
		"electing":             {"", []*registryv1.ServerState{server("a", "candidate", true), server("b", "follower", true)}, false, []string{"NO_LEADER "}},
		"the leader is paused": {"a", []*registryv1.ServerState{server("a", "unreachable", true), server("b", "follower", true), server("c", "follower", true)}, false, []string{"NO_LEADER ", "SERVER_DOWN a"}},
		"no cluster yet":       {"", nil, false, []string{"MAJORITY_LOST "}},
	} {
		t.Run(name, func(t *testing.T) {
			available, problems := member.Judge("us-east", tc.leader, tc.servers)
			require.Equal(t, tc.available, available)
			var got []string
			for _, p := range problems {
				require.NotEmpty(t, p.GetMessage())
				require.NotEmpty(t, p.GetRemedy())
				require.False(t, p.GetWarning())
				got = append(got, p.GetReason()+" "+p.GetServer())
			}
			require.Equal(t, tc.want, got)
		})
	}
}
