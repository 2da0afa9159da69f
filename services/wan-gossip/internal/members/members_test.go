package members_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"konsul.dev/services/wan-gossip/internal/members"
)

func self(dc, id string) members.Self {
	return members.Self{
		Name: "n1." + dc, Federation: "fed", Datacenter: dc, DatacenterID: id,
		Gateways: []string{"gw1:8443", "gw2:8443"}, Version: "v1",
	}
}

func member(s members.Self, status members.Status) members.Member {
	return members.Parse(s.Name, "127.0.0.1:8302", status, s.Tags())
}

func TestTagsSurvive(t *testing.T) {
	m := member(self("us-east", "id-1"), members.Alive)
	require.Equal(t, "fed", m.Federation)
	require.Equal(t, "us-east", m.Datacenter)
	require.Equal(t, "id-1", m.DatacenterID)
	require.Equal(t, []string{"gw1:8443", "gw2:8443"}, m.Gateways)
}

func TestAdmit(t *testing.T) {
	east := self("us-east", "id-1")
	foreign := self("us-west", "id-2")
	foreign.Federation = "other"
	for name, c := range map[string]struct {
		candidate members.Member
		known     []members.Member
		reason    string
	}{
		"own member":            {candidate: member(east, members.Alive)},
		"another datacenter":    {candidate: member(self("us-west", "id-2"), members.Alive)},
		"another federation":    {candidate: member(foreign, members.Alive), reason: members.ReasonFederation},
		"no konsul":             {candidate: members.Parse("x", "y", members.Alive, map[string]string{"role": "web"}), reason: members.ReasonStranger},
		"my name, other id":     {candidate: member(self("us-east", "id-9"), members.Alive), reason: members.ReasonDuplicate},
		"known name, other id":  {member(self("us-west", "id-3"), members.Alive), []members.Member{member(self("us-west", "id-2"), members.Alive)}, members.ReasonDuplicate},
		"failed name, other id": {member(self("us-west", "id-3"), members.Alive), []members.Member{member(self("us-west", "id-2"), members.Failed)}, members.ReasonDuplicate},
		"name that has left":    {member(self("us-west", "id-3"), members.Alive), []members.Member{member(self("us-west", "id-2"), members.Left)}, ""},
		"memory of one left":    {member(self("us-east", "id-0"), members.Left), nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			refusal := east.Admit(c.candidate, c.known)
			if c.reason == "" {
				require.Nil(t, refusal)
				return
			}
			require.NotNil(t, refusal)
			require.Equal(t, c.reason, refusal.Reason)
			require.NotEmpty(t, refusal.Remedy)
		})
	}
}

func TestNoPoolEverHasTwoIdsForOneName(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		owner := self("a", "1")
		known := []members.Member{member(owner, members.Alive)}
		for range rapid.IntRange(1, 20).Draw(t, "n") {
			next := self(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "dc"), rapid.SampledFrom([]string{"1", "2"}).Draw(t, "id"))
			candidate := member(next, rapid.SampledFrom([]members.Status{members.Alive, members.Failed}).Draw(t, "status"))
			if owner.Admit(candidate, known) == nil {
				known = append(known, candidate)
			}
		}
		ids := map[string]string{}
		for _, m := range known {
			if id, ok := ids[m.Datacenter]; ok && id != m.DatacenterID {
				t.Fatalf("%s has ids %s and %s", m.Datacenter, id, m.DatacenterID)
			}
			ids[m.Datacenter] = m.DatacenterID
		}
	})
}
