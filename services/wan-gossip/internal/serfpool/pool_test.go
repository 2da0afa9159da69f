package serfpool_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"konsul.dev/services/wan-gossip/internal/members"
	"konsul.dev/services/wan-gossip/internal/serfpool"
)

const patience = 20 * time.Second

func key(fill byte) []byte { return bytes.Repeat([]byte{fill}, 32) }

func self(dc string) members.Self {
	return members.Self{
		Name: "n1." + dc, Federation: "fed-1", Datacenter: dc, DatacenterID: "id-" + dc, Gateways: []string{dc + ":8443"},
	}
}

// fast notices a death within about two seconds.
func fast() serfpool.Timing {
	return serfpool.Timing{
		ProbeInterval: 250 * time.Millisecond, ProbeTimeout: 150 * time.Millisecond, SuspicionMult: 4, SuspicionMaxMult: 2,
		GossipInterval: 20 * time.Millisecond, PushPullInterval: 5 * time.Second,
		ReconnectInterval: 200 * time.Millisecond, ReconnectTimeout: time.Hour, TombstoneTimeout: time.Hour, StreamTimeout: time.Second,
	}
}

func limits() serfpool.Limits {
	return serfpool.Limits{Streams: 16, StreamsPerSource: 8, StreamBytes: 1 << 20}
}

func metrics(t *testing.T, registry *prometheus.Registry) *serfpool.Metrics {
	t.Helper()
	m, err := serfpool.NewMetrics(registry)
	require.NoError(t, err)
	return m
}

type node struct {
	*serfpool.Pool

	cancel context.CancelFunc
	done   chan struct{}
}

func open(t *testing.T, me members.Self, gossipKey []byte, port int) *node {
	t.Helper()
	return openWith(t, me, gossipKey, port, fast())
}

func openWith(t *testing.T, me members.Self, gossipKey []byte, port int, timing serfpool.Timing) *node {
	t.Helper()
	pool, err := serfpool.Open(serfpool.Config{
		Self: me, BindIP: "127.0.0.1", BindPort: port, Keys: [][]byte{gossipKey}, Admit: me.Admit,
		Timing: timing, Limits: limits(), Metrics: metrics(t, prometheus.NewRegistry()), Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{Pool: pool, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(n.done)
		_ = pool.Run(ctx, func([]members.Member) {})
	}()
	t.Cleanup(n.kill)
	return n
}

// kill ends a node without a farewell.
func (n *node) kill() {
	_ = n.Shutdown()
	n.cancel()
	<-n.done
}

func (n *node) port(t *testing.T) int {
	t.Helper()
	_, text, err := net.SplitHostPort(n.Addr())
	require.NoError(t, err)
	port, err := strconv.Atoi(text)
	require.NoError(t, err)
	return port
}

func (n *node) status(name string) members.Status {
	for _, m := range n.Members() {
		if m.Name == name {
			return m.Status
		}
	}
	return ""
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, patience, 20*time.Millisecond, what)
}

func TestThreeDatacentersLiveDieAndReturn(t *testing.T) {
	east, west, eu := open(t, self("us-east"), key(1), 0), open(t, self("us-west"), key(1), 0), open(t, self("eu"), key(1), 0)
	require.NoError(t, west.Join(east.Addr()))
	require.NoError(t, eu.Join(east.Addr()))
	all := []*node{east, west, eu}
	eventually(t, "everybody knows everybody", func() bool {
		for _, n := range all {
			for _, name := range []string{"n1.us-east", "n1.us-west", "n1.eu"} {
				if n.status(name) != members.Alive {
					return false
				}
			}
		}
		return true
	})
	for _, m := range eu.Members() {
		if m.Datacenter == "us-west" {
			require.Equal(t, []string{"us-west:8443"}, m.Gateways)
			d, err := eu.Ping(m)
			require.NoError(t, err)
			require.Positive(t, d)
			require.Less(t, d, time.Second)
		}
	}

	port := west.port(t)
	west.kill()
	eventually(t, "a killed member is seen as failed", func() bool {
		return east.status("n1.us-west") == members.Failed && eu.status("n1.us-west") == members.Failed
	})
	west = open(t, self("us-west"), key(1), port)
	require.NoError(t, west.Join(eu.Addr()))
	eventually(t, "a restarted member is alive again", func() bool {
		return east.status("n1.us-west") == members.Alive && west.status("n1.us-east") == members.Alive
	})

	west.kill()
	eventually(t, "it fails again", func() bool { return east.status("n1.us-west") == members.Failed })
	west = open(t, self("us-west"), key(1), 0)
	require.ErrorIs(t, west.Join(eu.Addr()), members.ErrOldAddress, "that is what eu said before it heard")
	eventually(t, "eu has heard", func() bool { return west.Join(eu.Addr()) == nil })
	eventually(t, "and may return at another address", func() bool {
		return east.status("n1.us-west") == members.Alive && west.status("n1.us-east") == members.Alive
	})

	require.NoError(t, eu.Leave(t.Context()))
	eventually(t, "a farewell is no failure", func() bool { return east.status("n1.eu") == members.Left })
}

func TestForeignersAndDoublesAreRefused(t *testing.T) {
	foreign, double := self("eu"), self("us-east")
	foreign.Federation, double.Name, double.DatacenterID = "fed-2", "n2.us-east", "id-of-another"
	sameName := double
	sameName.Name = "n1.us-east"
	for name, c := range map[string]struct {
		me     members.Self
		reason string
	}{
		"another federation":               {foreign, members.ReasonFederation},
		"another datacenter of that name":  {double, members.ReasonDuplicate},
		"and with the same member's name":  {sameName, members.ReasonDuplicate},
		"a member of the same datacenter":  {members.Self{Name: "n2.us-east", Federation: "fed-1", Datacenter: "us-east", DatacenterID: "id-us-east"}, ""},
		"a datacenter of the same network": {self("us-west"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			east, newcomer := open(t, self("us-east"), key(1), 0), open(t, c.me, key(1), 0)
			err := newcomer.Join(east.Addr())
			if c.reason == "" {
				require.NoError(t, err)
				eventually(t, "it is in", func() bool { return east.status(c.me.Name) == members.Alive })
				return
			}
			var refusal *members.Refusal
			require.ErrorAs(t, err, &refusal)
			require.Equal(t, c.reason, refusal.Reason)
			// The other way round it must not get in either.
			require.Error(t, east.Join(newcomer.Addr()))
			require.Len(t, east.Members(), 1)
			require.Len(t, newcomer.Members(), 1)
		})
	}
}

func TestWrongKeyIsRefused(t *testing.T) {
	east, newcomer := open(t, self("us-east"), key(1), 0), open(t, self("us-west"), key(2), 0)
	err := newcomer.Join(east.Addr())
	var refusal *members.Refusal
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, members.ReasonEncryption, refusal.Reason)
	require.Len(t, east.Members(), 1)

	require.NoError(t, east.SetKeys([][]byte{key(2), key(1)}))
	require.NoError(t, newcomer.Join(east.Addr()), "a key that was rotated in opens the door")
	require.NoError(t, east.SetKeys([][]byte{key(2)}))
	eventually(t, "and gossip flows", func() bool { return east.status("n1.us-west") == members.Alive })
}

func TestNoKeyNoGossip(t *testing.T) {
	_, err := serfpool.Open(serfpool.Config{Self: self("us-east"), BindIP: "127.0.0.1", Log: slog.New(slog.DiscardHandler)})
	require.Error(t, err)
}

func TestUnreachableSeedIsAnErrorAndNoRefusal(t *testing.T) {
	east := open(t, self("us-east"), key(1), 0)
	err := east.Join("127.0.0.1:1")
	require.Error(t, err)
	var refusal *members.Refusal
	require.NotErrorAs(t, err, &refusal)
}

func TestAMemberThatMovesAtOnceIsBackOnceItsOldAddressIsFoundDead(t *testing.T) {
	slow := fast()
	slow.PushPullInterval, slow.ReconnectInterval = time.Hour, time.Hour // neither may be what mends it
	east, eu := openWith(t, self("us-east"), key(1), 0, slow), openWith(t, self("eu"), key(1), 0, slow)
	west := openWith(t, self("us-west"), key(1), 0, slow)
	require.NoError(t, west.Join(east.Addr()))
	require.NoError(t, eu.Join(east.Addr()))
	others := []*node{east, eu}
	eventually(t, "they know it", func() bool {
		return east.status("n1.us-west") == members.Alive && eu.status("n1.us-west") == members.Alive
	})
	west.kill()
	west = openWith(t, self("us-west"), key(1), 0, slow)
	for _, other := range others {
		require.ErrorIs(t, west.Join(other.Addr()), members.ErrOldAddress, "they hold it at its old address")
	}
	eventually(t, "they take the new address", func() bool {
		for _, other := range others {
			if err := west.Join(other.Addr()); err != nil {
				require.ErrorIs(t, err, members.ErrOldAddress)
				return false
			}
		}
		return true
	})
	eventually(t, "it is alive there", func() bool {
		for _, other := range others {
			for _, m := range other.Members() {
				if m.Name == "n1.us-west" && (m.Address != west.Addr() || m.Status != members.Alive) {
					return false
				}
			}
		}
		return true
	})
}
