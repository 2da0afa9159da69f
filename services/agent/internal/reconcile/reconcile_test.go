package reconcile_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/services/agent/internal/reconcile"
)

const (
	passing  = registryv1.HealthStatus_HEALTH_STATUS_PASSING
	critical = registryv1.HealthStatus_HEALTH_STATUS_CRITICAL
)

func node(address string) *registryv1.Node { return &registryv1.Node{Name: "n1", Address: address} }

func instance(id string, change ...func(*reconcile.Instance)) reconcile.Instance {
	i := reconcile.Instance{
		Service: &registryv1.Service{
			Id: id, Name: "api", Node: "n1", Address: "10.0.0.1", Port: 80, Tags: []string{"a", "b"},
			Meta: map[string]string{reconcile.MarkKey: reconcile.MarkValue},
		},
		Checks: []*registryv1.Check{{Id: "http", Name: "http", Status: passing, Output: "200 OK"}},
	}
	for _, c := range change {
		c(&i)
	}
	return i
}

func on(name string) func(*reconcile.Instance) {
	return func(i *reconcile.Instance) { i.Service.Node = name }
}

func status(s registryv1.HealthStatus, output string) func(*reconcile.Instance) {
	return func(i *reconcile.Instance) { i.Checks[0].Status, i.Checks[0].Output = s, output }
}

func unmarked(i *reconcile.Instance)    { i.Service.Meta = nil }
func notRun(i *reconcile.Instance)      { status(0, "")(i) }
func newPort(i *reconcile.Instance)     { i.Service.Port = 81 }
func tagsTurned(i *reconcile.Instance)  { i.Service.Tags = []string{"b", "a"} }
func secondCheck(i *reconcile.Instance) { i.Checks = append(i.Checks, &registryv1.Check{Id: "tcp"}) }

func underMaintenance(i *reconcile.Instance) {
	i.Checks = append([]*registryv1.Check{{Id: "_maintenance", Name: "maintenance", Status: critical}}, i.Checks...)
}

func TestDiff(t *testing.T) {
	type instances = []reconcile.Instance
	for name, c := range map[string]struct {
		desired    instances
		incomplete bool
		actual     instances
		check      func(*require.Assertions, reconcile.Plan)
	}{
		"nothing to do": {
			desired: instances{instance("a")}, actual: instances{instance("a", tagsTurned)},
			check: func(is *require.Assertions, p reconcile.Plan) { is.True(idle(p)); is.Len(p.Matching, 1) },
		},
		"missing": {
			desired: instances{instance("a")},
			check:   func(is *require.Assertions, p reconcile.Plan) { is.Len(p.Register, 1) },
		},
		"changed": {
			desired: instances{instance("a", newPort)}, actual: instances{instance("a")},
			check: func(is *require.Assertions, p reconcile.Plan) { is.Len(p.Register, 1) },
		},
		"another check": {
			desired: instances{instance("a", secondCheck)}, actual: instances{instance("a")},
			check: func(is *require.Assertions, p reconcile.Plan) { is.Len(p.Register, 1) },
		},
		"the registry's own checks are none of ours": {
			desired: instances{instance("a")}, actual: instances{instance("a", underMaintenance)},
			check: func(is *require.Assertions, p reconcile.Plan) { is.True(idle(p)) },
		},
		"another outcome is no registration": {
			desired: instances{instance("a", status(critical, "refused"))}, actual: instances{instance("a")},
			check: func(is *require.Assertions, p reconcile.Plan) {
				is.Empty(p.Register)
				want := []*registryv1.CheckUpdate{{ServiceId: "a", CheckId: "http", Status: critical, Output: "refused"}}
				is.Empty(cmp.Diff(want, p.Updates, protocmp.Transform()))
			},
		},
		"a check that has not run says nothing": {
			desired: instances{instance("a", notRun)}, actual: instances{instance("a")},
			check: func(is *require.Assertions, p reconcile.Plan) { is.True(idle(p)) },
		},
		"a new check is critical until it has run": {
			desired: instances{instance("a", notRun)},
			check: func(is *require.Assertions, p reconcile.Plan) {
				is.Equal(critical, p.Register[0].Checks[0].GetStatus())
				is.NotEmpty(p.Register[0].Checks[0].GetOutput())
			},
		},
		"a restart keeps the status of a changed instance": {
			desired: instances{instance("a", notRun, newPort)}, actual: instances{instance("a")},
			check: func(is *require.Assertions, p reconcile.Plan) {
				is.Equal(passing, p.Register[0].Checks[0].GetStatus())
			},
		},
		"removed": {
			actual: instances{instance("a")},
			check:  func(is *require.Assertions, p reconcile.Plan) { is.Equal([]string{"a"}, p.Deregister) },
		},
		"nothing is removed while a file cannot be read": {
			incomplete: true, actual: instances{instance("a")},
			check: func(is *require.Assertions, p reconcile.Plan) { is.True(idle(p)) },
		},
		"what others registered here stays": {
			actual: instances{instance("a", unmarked)},
			check:  func(is *require.Assertions, p reconcile.Plan) { is.True(idle(p)) },
		},
		"what is on other nodes stays": {
			actual: instances{instance("a", on("n2"))},
			check:  func(is *require.Assertions, p reconcile.Plan) { is.True(idle(p)) },
		},
		"an id of another node is left to it": {
			desired: instances{instance("a")}, actual: instances{instance("a", on("n2"))},
			check: func(is *require.Assertions, p reconcile.Plan) {
				is.True(idle(p))
				is.Equal([]reconcile.Conflict{{ServiceID: "a", Node: "n2"}}, p.Conflicts)
			},
		},
		"what was registered by hand is taken over": {
			desired: instances{instance("a")}, actual: instances{instance("a", unmarked)},
			check: func(is *require.Assertions, p reconcile.Plan) { is.Len(p.Register, 1) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.check(require.New(t), reconcile.Diff(
				reconcile.Desired{Node: node("10.0.0.1"), Instances: c.desired, Complete: !c.incomplete},
				reconcile.Actual{Node: node("10.0.0.1"), Instances: c.actual},
			))
		})
	}
}

func TestNode(t *testing.T) {
	desired := reconcile.Desired{Node: node("10.0.0.2"), Complete: true}
	require.True(t, reconcile.Diff(desired, reconcile.Actual{}).RegisterNode, "missing")
	require.True(t, reconcile.Diff(desired, reconcile.Actual{Node: node("10.0.0.1")}).RegisterNode, "moved")
	require.False(t, reconcile.Diff(desired, reconcile.Actual{Node: node("10.0.0.2")}).RegisterNode)
	desired.Node.LivenessTtl = durationpb.New(time.Minute)
	require.True(t, reconcile.Diff(desired, reconcile.Actual{Node: node("10.0.0.2")}).RegisterNode, "nobody expects its heartbeats")
	desired.Instances = []reconcile.Instance{instance("a")}
	require.True(t, reconcile.Diff(desired, reconcile.Actual{}).RegisterNode, "the instance may be refused")
}

func idle(p reconcile.Plan) bool {
	return !p.RegisterNode && len(p.Register)+len(p.Deregister)+len(p.Updates) == 0
}

// do is what a registry makes of a plan.
func do(desired reconcile.Desired, actual reconcile.Actual, p reconcile.Plan) reconcile.Actual {
	rows := map[string]reconcile.Instance{}
	for _, i := range actual.Instances {
		rows[i.Service.GetId()] = i
	}
	for _, i := range p.Register {
		rows[i.Service.GetId()] = i
		actual.Node = desired.Node
	}
	if p.RegisterNode {
		actual.Node = desired.Node
	}
	for _, id := range p.Deregister {
		delete(rows, id)
	}
	for _, u := range p.Updates {
		for _, c := range rows[u.GetServiceId()].Checks {
			if c.GetId() == u.GetCheckId() {
				c.Status, c.Output = u.GetStatus(), u.GetOutput()
			}
		}
	}
	return reconcile.Actual{Node: actual.Node, Instances: slices.Collect(maps.Values(rows))}
}

func someInstances(t *rapid.T, label string, nodes ...string) []reconcile.Instance {
	rows := map[string]reconcile.Instance{}
	for range rapid.IntRange(0, 4).Draw(t, label) {
		i := instance(rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "id"),
			on(rapid.SampledFrom(nodes).Draw(t, "node")),
			status(registryv1.HealthStatus(rapid.IntRange(0, 3).Draw(t, "status")), rapid.SampledFrom([]string{"", "x"}).Draw(t, "output")))
		i.Service.Port = rapid.Uint32Range(80, 81).Draw(t, "port")
		if rapid.Bool().Draw(t, "second check") {
			secondCheck(&i)
		}
		rows[i.Service.GetId()] = i
	}
	return slices.Collect(maps.Values(rows))
}

func TestADonePlanLeavesNothingToDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		desired := reconcile.Desired{Node: node("10.0.0.1"), Complete: rapid.Bool().Draw(t, "complete"), Instances: someInstances(t, "desired", "n1")}
		actual := reconcile.Actual{Instances: someInstances(t, "actual", "n1", "n2")}
		for _, i := range actual.Instances {
			if rapid.Bool().Draw(t, "unmarked") {
				unmarked(&i)
			}
		}
		before := map[string]*registryv1.Service{}
		for _, i := range actual.Instances {
			before[i.Service.GetId()] = proto.CloneOf(i.Service)
		}
		plan := reconcile.Diff(desired, actual)
		for _, id := range plan.Deregister {
			require.True(t, desired.Complete)
			require.Equal(t, "n1", before[id].GetNode())
			require.Equal(t, reconcile.MarkValue, before[id].GetMeta()[reconcile.MarkKey])
		}
		for _, i := range plan.Register {
			require.NotEqual(t, "n2", before[i.Service.GetId()].GetNode())
		}
		again := reconcile.Diff(desired, do(desired, actual, plan))
		require.True(t, idle(again), "%+v", again)
		require.Equal(t, plan.Conflicts, again.Conflicts)
	})
}
