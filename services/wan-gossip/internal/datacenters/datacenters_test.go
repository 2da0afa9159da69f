package datacenters_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/services/wan-gossip/internal/datacenters"
	"konsul.dev/services/wan-gossip/internal/members"
)

func member(name, dc string, status members.Status, gateways ...string) members.Member {
	return members.Member{Name: name, Datacenter: dc, DatacenterID: "id-" + dc, Status: status, Gateways: gateways}
}

func TestStateFollowsTheLiveliestMember(t *testing.T) {
	for name, c := range map[string]struct {
		statuses []members.Status
		want     datacenters.State
	}{
		"one alive":              {[]members.Status{members.Alive}, datacenters.Alive},
		"one alive, one dead":    {[]members.Status{members.Failed, members.Alive}, datacenters.Alive},
		"leaving still answers":  {[]members.Status{members.Leaving, members.Left}, datacenters.Alive},
		"all dead":               {[]members.Status{members.Failed, members.Failed}, datacenters.Failed},
		"the last one is dead":   {[]members.Status{members.Left, members.Failed}, datacenters.Failed},
		"all have left":          {[]members.Status{members.Left, members.Left}, datacenters.Left},
		"alive wins over leaves": {[]members.Status{members.Left, members.Alive}, datacenters.Alive},
	} {
		t.Run(name, func(t *testing.T) {
			var all []members.Member
			for i, s := range c.statuses {
				all = append(all, member(string(rune('a'+i)), "us-west", s))
			}
			list := datacenters.List(datacenters.Inputs{Own: "us-east", Members: all})
			require.Len(t, list, 1)
			require.Equal(t, c.want, list[0].State)
		})
	}
}

func TestListIsOrderedAndComplete(t *testing.T) {
	list := datacenters.List(datacenters.Inputs{
		Own: "us-east", Primary: "us-west",
		Members: []members.Member{
			member("n2", "us-west", members.Alive, "b:8443"), member("n1", "us-west", members.Alive, "a:8443", "b:8443"),
			member("n3", "us-west", members.Failed, "old:8443"), member("n1", "us-east", members.Alive), member("n1", "eu", members.Failed, "eu:8443"),
		},
		RoundTrips: map[string]time.Duration{"us-west": 7 * time.Millisecond},
	})
	require.Equal(t, "eu", list[0].Name)
	require.False(t, list[0].Measured)
	require.Equal(t, []string{"eu:8443"}, list[0].Gateways, "a dead datacenter's word is kept")
	require.Equal(t, "us-east", list[1].Name)
	require.True(t, list[1].Measured)
	require.Zero(t, list[1].RoundTrip)
	require.Equal(t, "us-west", list[2].Name)
	require.Equal(t, []string{"a:8443", "b:8443"}, list[2].Gateways)
	require.True(t, list[2].Primary)
	require.Equal(t, 7*time.Millisecond, list[2].RoundTrip)
	require.Equal(t, 2, datacenters.Connected(list))
	require.InDelta(t, 2.0/3, datacenters.Health(list), 1e-9)
}

func TestTheFirstIDOfANameIsTheDatacenters(t *testing.T) {
	view := datacenters.NewView("us-west", "us-east")
	first := member("a", "us-east", members.Alive, "real:8443")
	rival := member("b", "us-east", members.Alive, "rival:8443")
	rival.DatacenterID = "another"
	one := func() datacenters.Datacenter {
		list, _ := view.Current()
		require.Len(t, list, 1)
		return list[0]
	}
	view.SetMembers([]members.Member{first}, time.Unix(1, 0))
	for _, all := range [][]members.Member{{first, rival}, {rival, first}} {
		view.SetMembers(all, time.Unix(2, 0))
		require.Equal(t, "id-us-east", one().ID)
		require.Equal(t, []string{"real:8443"}, one().Gateways)
		require.Equal(t, []members.Member{rival}, one().Rivals)
		require.Len(t, one().Members, 1)
	}
	first.Status = members.Failed
	view.SetMembers([]members.Member{rival, first}, time.Unix(3, 0))
	require.Equal(t, datacenters.Failed, one().State, "a rival does not bring it back to life")

	first.Status = members.Left
	view.SetMembers([]members.Member{first, rival}, time.Unix(4, 0))
	require.Equal(t, "another", one().ID, "the name is free once everybody has left")
	require.Empty(t, one().Rivals)
}

func TestHealthForgetsWhoLeft(t *testing.T) {
	list := datacenters.List(datacenters.Inputs{Members: []members.Member{member("a", "x", members.Alive), member("b", "y", members.Left)}})
	require.InDelta(t, 1, datacenters.Health(list), 0)
	require.Zero(t, datacenters.Health(nil))
}

func changed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func TestViewWakesOnChangeOnly(t *testing.T) {
	view := datacenters.NewView("us-east", "us-east")
	start := time.Unix(1000, 0)
	all := []members.Member{member("a", "us-east", members.Alive), member("b", "us-west", members.Alive)}
	view.SetMembers(all, start)

	_, ch := view.Current()
	view.SetMembers([]members.Member{all[1], all[0]}, start.Add(time.Second))
	require.False(t, changed(ch), "the same members are no change")
	view.SetRoundTrips(map[string]time.Duration{"us-west": time.Millisecond}, start)
	require.True(t, changed(ch), "the first measurement is")
	_, ch = view.Current()
	view.SetRoundTrips(map[string]time.Duration{"us-west": 2 * time.Millisecond}, start)
	require.False(t, changed(ch))
	list, _ := view.Current()
	require.Equal(t, 2*time.Millisecond, list[1].RoundTrip)
	require.Equal(t, start, list[1].Since)

	all[1].Status = members.Failed
	view.SetMembers(all, start.Add(time.Minute))
	require.True(t, changed(ch))
	list, _ = view.Current()
	require.Equal(t, start.Add(time.Minute), list[1].Since)
	require.Equal(t, start, list[0].Since)
}
