package member_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/member"
)

func server(id string) *registryv1.Member {
	return &registryv1.Member{Id: id, RaftAddress: id + ":8300", Address: id + ":8502", Incarnation: "disk-" + id, CommandVersion: 2}
}

// greeting is what a server without state answers that has met some.
func greeting(m *registryv1.Member, expect uint32, met ...*registryv1.Member) *registryv1.GreetResponse {
	return &registryv1.GreetResponse{Self: m, Fresh: true, Expect: expect, Met: met}
}

func TestMeet(t *testing.T) {
	a, b, c := server("a"), server("b"), server("c")
	all := []*registryv1.Member{a, b, c}
	member1 := &registryv1.GreetResponse{Self: c, Members: []string{"c"}}
	alias := proto.CloneOf(c)
	alias.Id, alias.Incarnation = "a", "disk-other"
	twin := proto.CloneOf(c)
	twin.RaftAddress = b.GetRaftAddress()
	for name, test := range map[string]struct {
		own     *registryv1.Member
		expect  int
		answers map[string]*registryv1.GreetResponse
		step    member.Step
		why     string
	}{
		"a server of its own founds at once": {a, 1, nil, member.Found, ""},
		"somebody is missing":                {a, 3, map[string]*registryv1.GreetResponse{"b:8502": greeting(b, 3), "c:8502": nil}, member.Wait, "2 of 3 servers have met; no answer from c:8502"},
		"a majority is not enough":           {a, 3, map[string]*registryv1.GreetResponse{"b:8502": greeting(b, 3, all...), "c:8502": nil}, member.Wait, "no answer from c:8502"},
		"one that is listed for nothing":     {a, 1, map[string]*registryv1.GreetResponse{"b:8502": nil}, member.Wait, "no answer from b:8502: start it, or take it out of registry.servers and registry.join"},
		"somebody has not met all":           {a, 3, map[string]*registryv1.GreetResponse{"b:8502": greeting(b, 3, all...), "c:8502": greeting(c, 3)}, member.Follow, "c has not met all of them"},
		"the first founds":                   {a, 3, map[string]*registryv1.GreetResponse{"b:8502": greeting(b, 3, all...), "c:8502": greeting(c, 3, all...)}, member.Found, ""},
		"the others follow":                  {b, 3, map[string]*registryv1.GreetResponse{"a:8502": greeting(a, 3, all...), "c:8502": greeting(c, 3, all...)}, member.Follow, "a founds the cluster"},
		"its own address is in the list":     {a, 3, map[string]*registryv1.GreetResponse{"a:8502": greeting(a, 3), "b:8502": greeting(b, 3, all...), "c:8502": greeting(c, 3, all...)}, member.Found, ""},
		"two addresses of one server":        {a, 3, map[string]*registryv1.GreetResponse{"b:8502": greeting(b, 3), "b.local:8502": greeting(b, 3)}, member.Wait, "2 servers have met, registry.bootstrap_expect is 3"},
		"more than expected":                 {a, 1, map[string]*registryv1.GreetResponse{"b:8502": greeting(b, 1)}, member.Wait, "2 servers have met, registry.bootstrap_expect is 1"},
		"they expect different numbers":      {a, 3, map[string]*registryv1.GreetResponse{"b:8502": greeting(b, 5), "c:8502": greeting(c, 3)}, member.Wait, "b:8502 expects 5 servers, this one 3"},
		"one has a cluster":                  {a, 3, map[string]*registryv1.GreetResponse{"b:8502": greeting(b, 3), "c:8502": member1}, member.Join, "c is in a cluster"},
		"one has a cluster, one is silent":   {a, 3, map[string]*registryv1.GreetResponse{"b:8502": nil, "c:8502": member1}, member.Join, ""},
		"it only joins, and there is none":   {a, 0, map[string]*registryv1.GreetResponse{"b:8502": greeting(b, 3)}, member.Wait, "no server of registry.join is in a cluster yet"},
		"another has its id":                 {a, 3, map[string]*registryv1.GreetResponse{"b:8502": greeting(b, 3), "c:8502": greeting(alias, 3)}, member.Wait, `c:8502 has the id "a" too`},
		"two have one raft address":          {a, 3, map[string]*registryv1.GreetResponse{"b:8502": greeting(b, 3), "c:8502": greeting(twin, 3)}, member.Wait, "both advertise b:8300"},
		"one met another disk of this one":   {a, 3, map[string]*registryv1.GreetResponse{"b:8502": greeting(b, 3, alias, b, c), "c:8502": greeting(c, 3, all...)}, member.Follow, "b has not met all of them"},
	} {
		t.Run(name, func(t *testing.T) {
			step, founders, why := member.Meet(member.Met{Own: test.own, Expect: test.expect, Answers: test.answers})
			require.Equal(t, test.step, step)
			require.Contains(t, why, test.why)
			if step == member.Found && test.expect == 3 {
				require.True(t, member.Same(all, founders))
			}
		})
	}
}

func row(t *testing.T, table registryv1.Table, key string, m proto.Message, index uint64) *registryv1.Record {
	t.Helper()
	value, err := proto.Marshal(m)
	require.NoError(t, err)
	return &registryv1.Record{Table: table, Key: key, Value: value, ModifyIndex: index}
}

func TestViewFollowsTheRows(t *testing.T) {
	v := member.NewView()
	require.NoError(t, v.Apply([]*registryv1.Record{
		row(t, registryv1.Table_TABLE_SERVER, "b", server("b"), 3), row(t, registryv1.Table_TABLE_SERVER, "a", server("a"), 4),
		{Table: registryv1.Table_TABLE_KV, Key: "a"},
	}))
	address, ok := v.Address("a")
	require.True(t, ok)
	require.Equal(t, "a:8502", address)
	require.Len(t, v.Servers(), 2)
	require.Equal(t, "a", v.Servers()[0].GetId())
	require.NoError(t, v.Apply([]*registryv1.Record{{Table: registryv1.Table_TABLE_SERVER, Key: "a", Deleted: true, ModifyIndex: 5}}))
	require.Nil(t, v.Server("a"))
	_, ok = v.Address("a")
	require.False(t, ok)
	require.Error(t, v.Apply([]*registryv1.Record{{Table: registryv1.Table_TABLE_SERVER, Key: "a", Value: []byte{0xff}}}))
}

func TestAdmitNamesTheServersThatAreTooOld(t *testing.T) {
	v := member.NewView()
	old := server("old")
	old.CommandVersion = 1
	require.NoError(t, v.Apply([]*registryv1.Record{
		row(t, registryv1.Table_TABLE_SERVER, "a", server("a"), 3), row(t, registryv1.Table_TABLE_SERVER, "old", old, 4),
	}))
	require.NoError(t, v.Admit(1, []string{"a", "old", "silent"}))
	require.NoError(t, v.Admit(2, []string{"a"}))
	err := v.Admit(2, []string{"a", "old", "silent"})
	require.Equal(t, fault.FailedPrecondition, fault.CodeOf(err))
	require.ErrorContains(t, err, "version 2, which old, silent does not understand yet")
}

func TestAutopilotSettingsChangeOnlyWhatIsNamed(t *testing.T) {
	v := member.NewView()
	change := &registryv1.AutopilotConfig{DeadServerAfter: durationpb.New(time.Hour), CleanupDeadServers: proto.Bool(false)}
	cmd, settings, err := v.SetAutopilot(change, nil, "dc1")
	require.NoError(t, err)
	require.Equal(t, time.Hour, settings.GetDeadServerAfter().AsDuration())
	require.False(t, settings.GetCleanupDeadServers())
	require.Equal(t, member.DefaultAutopilot().GetMinQuorum(), settings.GetMinQuorum())
	require.Zero(t, cmd.GetConditions()[0].GetModifyIndex())
	put := cmd.GetOperations()[0].GetPut()
	put.ModifyIndex = 9
	require.NoError(t, v.Apply([]*registryv1.Record{put}))
	current, index := v.Autopilot()
	require.EqualValues(t, 9, index)
	require.True(t, proto.Equal(settings, current))
	// Half a minute is no hour and a half: durations are replaced.
	_, settings, err = v.SetAutopilot(&registryv1.AutopilotConfig{DeadServerAfter: durationpb.New(30 * time.Second)}, proto.Uint64(9), "dc1")
	require.NoError(t, err)
	require.Equal(t, 30*time.Second, settings.GetDeadServerAfter().AsDuration())
	_, _, err = v.SetAutopilot(change, proto.Uint64(8), "dc1")
	require.Equal(t, fault.Aborted, fault.CodeOf(err))
	_, _, err = v.SetAutopilot(nil, nil, "dc1")
	require.Equal(t, fault.InvalidArgument, fault.CodeOf(err))
}
