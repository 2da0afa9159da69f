package agent_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/services/agent"
)

// beats returns how many heartbeats ended so.
func (r *running) beats(t *testing.T, result string) int {
	t.Helper()
	families, err := r.telemetry.Metrics.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "konsul_agent_heartbeats_total" && m.GetLabel()[0].GetValue() == result {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	t.Fatalf("no heartbeats with result %q", result)
	return 0
}

// allBeats returns how many heartbeats of this run have ended, however they did. What the registry
// counts includes one that a run before was sending when it stopped.
func (r *running) allBeats(t *testing.T) (count int) {
	t.Helper()
	families, err := r.telemetry.Metrics.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "konsul_agent_heartbeats_total" {
				count += int(m.GetCounter().GetValue())
			}
		}
	}
	return count
}

// lively is an agent whose heartbeats come soon, and whose comparisons only when something asks for
// them.
func lively(cfg *agent.Config) {
	cfg.Agent.LivenessTTL, cfg.Agent.SyncInterval = time.Second, time.Hour
}

func TestTheNodeIsRegisteredWithItsTTLAndBeats(t *testing.T) {
	w := newWorld(t)
	w.define(t, "a.yaml", "service: {name: a}")
	r := w.run(t, lively)
	eventually(t, "registered", func() bool { return w.registry.Service("a") != nil })
	require.Equal(t, time.Second, w.registry.Node(node).GetLivenessTtl().AsDuration())
	eventually(t, "beats", func() bool { return r.beats(t, "ok") >= 3 })
	require.Zero(t, r.beats(t, "unexpected"), "the first heartbeat follows the registration")
}

func TestANodeThatTheRegistryLostIsRegisteredAgain(t *testing.T) {
	for name, lose := range map[string]func(*world){
		"reaped":                           func(w *world) { w.registry.Reap(node) },
		"registered by hand without a ttl": func(w *world) { w.registry.PutNode(&registryv1.Node{Name: node, Address: "10.0.0.9"}) },
		"only seemingly expected to beat":  func(w *world) { w.registry.Forget(node) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.define(t, "a.yaml", "service: {name: a}")
			r := w.run(t, lively)
			eventually(t, "beats", func() bool { return r.beats(t, "ok") >= 1 })
			eventually(t, "noticed", func() bool {
				if r.beats(t, "unexpected") >= 1 {
					return true
				}
				lose(w) // again, if a comparison that was under way mended it
				return false
			})
			before := r.beats(t, "ok")
			eventually(t, "expected again", func() bool { return r.beats(t, "ok") > before })
			require.Equal(t, "10.0.0.1", w.registry.Node(node).GetAddress())
			require.Equal(t, time.Second, w.registry.Node(node).GetLivenessTtl().AsDuration())
			eventually(t, "its services too", func() bool { return w.registry.Service("a") != nil })
		})
	}
}

func TestAFailedHeartbeatIsCountedAndTriedAgain(t *testing.T) {
	w := newWorld(t)
	w.registry.Refuse("heartbeat", fault.New(fault.Unavailable, "NO_LEADER", "nobody leads"))
	r := w.run(t, lively)
	eventually(t, "counted", func() bool { return r.beats(t, "failed") >= 3 })
	require.Zero(t, r.beats(t, "ok"))
	w.registry.Refuse("heartbeat", nil)
	eventually(t, "tried again", func() bool { return r.beats(t, "ok") >= 2 })
}

func TestHeartbeatsGoOnWhenTheRegistryIsBack(t *testing.T) {
	w := newWorld(t)
	r := w.run(t, lively)
	eventually(t, "beats", func() bool { return r.beats(t, "ok") >= 1 })
	w.registry.Down()
	eventually(t, "fails", func() bool { return r.beats(t, "failed") >= 1 })
	w.registry.Reap(node)
	w.registry.Serve(t)
	before := r.beats(t, "ok")
	eventually(t, "beats again", func() bool { return r.beats(t, "ok") > before && w.registry.Node(node) != nil })
}

func TestADeadNodeLivesOnlyWithWhatItRunsNow(t *testing.T) {
	w := newWorld(t)
	first := w.run(t, lively)
	eventually(t, "registered", func() bool { return first.beats(t, "ok") >= 1 })
	require.NoError(t, first.Stop(t.Context()))
	w.registry.Edit(func(services map[string]*registryv1.Service, _ map[string][]*registryv1.Check) {
		services["gone"] = &registryv1.Service{Id: "gone", Name: "gone", Node: node, Meta: map[string]string{"managed-by": "konsul-agent"}}
	})
	w.registry.Refuse("deregister gone", fault.New(fault.Unavailable, "NO_LEADER", "nobody leads"))
	second := w.run(t, func(c *agent.Config) { c.Agent.LivenessTTL = time.Hour })
	eventually(t, "tried", func() bool {
		tries := slices.DeleteFunc(w.registry.Calls(), func(call string) bool { return call != "deregister gone" })
		return len(tries) >= 3
	})
	require.Zero(t, second.allBeats(t), "what runs no more must not come back to life with the node")
	w.registry.Refuse("deregister gone", nil)
	eventually(t, "lives", func() bool { return second.beats(t, "ok") >= 1 })
	require.Nil(t, w.registry.Service("gone"))
}

func TestWithoutATTLNobodyExpectsHeartbeats(t *testing.T) {
	w := newWorld(t)
	first := w.run(t, lively)
	eventually(t, "registered", func() bool { return first.beats(t, "ok") >= 1 })
	require.NoError(t, first.Stop(t.Context()))
	second := w.run(t, func(c *agent.Config) { c.Agent.LivenessTTL = 0 })
	eventually(t, "compared", func() bool { return second.Ready(t.Context()) == nil })
	require.Nil(t, w.registry.Node(node).GetLivenessTtl())
	require.Zero(t, second.allBeats(t))
}

func TestAStopLeavesTheNodeToItsTTL(t *testing.T) {
	w := newWorld(t)
	w.define(t, "a.yaml", "service: {name: a}")
	r := w.run(t, lively)
	eventually(t, "registered", func() bool { return w.registry.Service("a") != nil && r.beats(t, "ok") >= 1 })
	require.NoError(t, r.Stop(context.Background()))
	require.NotNil(t, w.registry.Service("a"))
	require.Equal(t, time.Second, w.registry.Node(node).GetLivenessTtl().AsDuration(), "who does not come back is found dead")
}

func TestLeaveOnStop(t *testing.T) {
	w := newWorld(t)
	w.define(t, "a.yaml", "service: {name: a}")
	w.define(t, "taken.yaml", "service: {name: taken}")
	w.registry.Edit(func(services map[string]*registryv1.Service, _ map[string][]*registryv1.Check) {
		services["taken"] = &registryv1.Service{Id: "taken", Name: "taken", Node: "n2"}
	})
	r := w.run(t, lively, func(c *agent.Config) { c.Agent.LeaveOnStop = true })
	eventually(t, "registered", func() bool { return w.registry.Service("a") != nil })
	require.NoError(t, r.Stop(context.Background()))
	require.Nil(t, w.registry.Service("a"))
	require.Nil(t, w.registry.Node(node))
	require.NotNil(t, w.registry.Service("taken"), "it is another node's")
}

func TestLeaveOnStopLeavesWhatPeopleRegistered(t *testing.T) {
	w := newWorld(t)
	w.define(t, "a.yaml", "service: {name: a}")
	r := w.run(t, lively, func(c *agent.Config) { c.Agent.LeaveOnStop = true })
	eventually(t, "registered", func() bool { return w.registry.Service("a") != nil })
	w.registry.Edit(func(services map[string]*registryv1.Service, _ map[string][]*registryv1.Check) {
		services["by-hand"] = &registryv1.Service{Id: "by-hand", Name: "by-hand", Node: node}
	})
	require.NoError(t, r.Stop(context.Background()))
	require.Nil(t, w.registry.Service("a"))
	require.NotNil(t, w.registry.Service("by-hand"))
	require.NotNil(t, w.registry.Node(node))
	require.Nil(t, w.registry.Node(node).GetLivenessTtl(), "nobody is left to beat for it")
}
