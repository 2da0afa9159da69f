package catalog_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/catalog"
	"konsul.dev/services/registry/internal/fsm/fsmtest"
	"konsul.dev/services/registry/internal/record/recordtest"
)

const (
	passing  = registryv1.HealthStatus_HEALTH_STATUS_PASSING
	warning  = registryv1.HealthStatus_HEALTH_STATUS_WARNING
	critical = registryv1.HealthStatus_HEALTH_STATUS_CRITICAL
)

// world is a state machine with the view that follows it.
type world struct {
	t     require.TestingT
	store *recordtest.Store
	view  *catalog.View
	w     *catalog.Writer
	// changed is what the last command changed the answers of.
	changed []string
}

func newWorld(t require.TestingT) *world {
	w := &world{t: t, store: recordtest.New(), view: catalog.NewView("dc1"), w: catalog.NewWriter("dc1", 100)}
	require.NoError(t, w.view.Load(w.store))
	return w
}

func (w *world) apply(cmd *registryv1.Command) *registryv1.CommandResult {
	index := w.store.Index() + 1
	before := w.store.Index()
	result, err := fsmtest.Apply(w.store.At(index), index, cmd)
	require.NoError(w.t, err)
	var rows []*registryv1.Record
	for _, r := range w.store.All() {
		if r.GetModifyIndex() > before {
			rows = append(rows, r)
		}
	}
	w.changed, err = w.view.Apply(index, rows)
	require.NoError(w.t, err)
	return result
}

func (w *world) register(req *registryv1.RegisterRequest) {
	plan, _, err := w.w.Register(w.view, req, "", time.Unix(1, 0))
	require.NoError(w.t, err)
	w.do(plan)
}

func (w *world) update(service, check string, status registryv1.HealthStatus) {
	plan, err := w.w.UpdateChecks(w.view, &registryv1.UpdateChecksRequest{Updates: []*registryv1.CheckUpdate{
		{ServiceId: service, CheckId: check, Status: status},
	}}, time.Unix(2, 0))
	require.NoError(w.t, err)
	w.do(plan)
}

// do applies a plan that must succeed.
func (w *world) do(plan *catalog.Plan) *registryv1.CommandResult {
	result := w.apply(plan.Command)
	require.Empty(w.t, result.GetFailedReason())
	return result
}

func (w *world) query(name string, passingOnly bool, tags ...string) string {
	instances, _ := w.view.Query(name, catalog.Selection{PassingOnly: passingOnly, Tags: tags})
	var out []string
	for _, i := range instances {
		out = append(out, fmt.Sprintf("%s@%s:%d %s", i.GetService().GetId(), i.GetService().GetAddress(), i.GetService().GetPort(),
			strings.ToLower(strings.TrimPrefix(i.GetStatus().String(), "HEALTH_STATUS_"))))
	}
	return strings.Join(out, ", ")
}

func registration(node, id, name string, checks ...*registryv1.Check) *registryv1.RegisterRequest {
	return &registryv1.RegisterRequest{
		Node:    &registryv1.Node{Name: node, Address: "10.0.0." + node[len(node)-1:]},
		Service: &registryv1.Service{Id: id, Name: name, Port: 80, Tags: []string{"v1", id}},
		Checks:  checks,
	}
}

func TestHealthIsTheWorstCheck(t *testing.T) {
	w := newWorld(t)
	w.register(registration("n1", "api-1", "api"))
	w.register(registration("n2", "api-2", "api", &registryv1.Check{Id: "http"}, &registryv1.Check{Id: "disk", Status: warning}))
	require.Equal(t, "api-1@10.0.0.1:80 passing, api-2@10.0.0.2:80 critical", w.query("api", false))
	w.update("api-2", "http", passing)
	require.Equal(t, "api-1@10.0.0.1:80 passing, api-2@10.0.0.2:80 warning", w.query("api", false))
	require.Equal(t, "api-1@10.0.0.1:80 passing", w.query("api", true))
	require.Equal(t, "api-2@10.0.0.2:80 warning", w.query("api", false, "v1", "api-2"))
	require.Empty(t, w.query("unknown", false))
}

func TestRegisteringAgainKeepsCheckStatusAndCostsNothing(t *testing.T) {
	w := newWorld(t)
	request := registration("n1", "api-1", "api", &registryv1.Check{Id: "http"}, &registryv1.Check{Id: "old"})
	w.register(request)
	w.update("api-1", "http", passing)
	w.update("api-1", "old", critical)

	same, _, err := w.w.Register(w.view, request, "", time.Unix(9, 0))
	require.NoError(t, err)
	require.Empty(t, same.Command.GetOperations())

	request.Checks = request.Checks[:1]
	request.Service.Port = 81
	w.register(request)
	require.Equal(t, "api-1@10.0.0.1:81 passing", w.query("api", false))
}

func TestUnchangedStatusCostsNoCommit(t *testing.T) {
	w := newWorld(t)
	w.register(registration("n1", "api-1", "api", &registryv1.Check{Id: "http", Status: passing}))
	plan, err := w.w.UpdateChecks(w.view, &registryv1.UpdateChecksRequest{Updates: []*registryv1.CheckUpdate{
		{ServiceId: "api-1", CheckId: "http", Status: passing, Output: "again"},
	}}, time.Unix(2, 0))
	require.NoError(t, err)
	require.Empty(t, plan.Command.GetOperations())
}

func TestAnswersSayWhenTheyLastChanged(t *testing.T) {
	w := newWorld(t)
	w.register(registration("n1", "api-1", "api", &registryv1.Check{Id: "http"})) // 1
	w.register(registration("n2", "web-1", "web"))                                // 2
	changed := func(name string) uint64 {
		_, a := w.view.Query(name, catalog.Selection{})
		require.Equal(t, w.store.Index(), a.Index)
		return a.Changed
	}
	require.EqualValues(t, 1, changed("api"))
	require.EqualValues(t, 2, changed("web"))
	w.update("api-1", "http", passing) // 3
	require.EqualValues(t, 3, changed("api"))
	require.EqualValues(t, 2, changed("web"))
	moved := registration("n2", "web-1", "web")
	moved.Node.Address = "10.9.9.9"
	w.register(moved) // 4: the node moved, and with it the service
	require.EqualValues(t, 4, changed("web"))
	plan, err := w.w.Deregister(w.view, &registryv1.DeregisterRequest{ServiceId: "api-1"})
	require.NoError(t, err)
	require.EqualValues(t, 2, w.do(plan).GetChanged()) // 5
	require.EqualValues(t, 5, changed("api"))
	require.Empty(t, w.query("api", false))
}

func TestBadRegistrationsNameTheirFields(t *testing.T) {
	w := newWorld(t)
	for field, spoil := range map[string]func(*registryv1.RegisterRequest){
		"node":                 func(r *registryv1.RegisterRequest) { r.Node = nil },
		"node.name":            func(r *registryv1.RegisterRequest) { r.Node.Name = "a b" },
		"node.address":         func(r *registryv1.RegisterRequest) { r.Node.Address = "host:80" },
		"service.address":      func(r *registryv1.RegisterRequest) { r.Service.Address = "256.256.256.256" },
		"service.name":         func(r *registryv1.RegisterRequest) { r.Service.Name = "Payment_API" },
		"service.id":           func(r *registryv1.RegisterRequest) { r.Service.Id = "a/b" },
		"service.port":         func(r *registryv1.RegisterRequest) { r.Service.Port = 70000 },
		"service.node":         func(r *registryv1.RegisterRequest) { r.Service.Node = "other" },
		"service.tags":         func(r *registryv1.RegisterRequest) { r.Service.Tags = []string{""} },
		"checks[0].id":         func(r *registryv1.RegisterRequest) { r.Checks[0].Id = "" },
		"checks[0].status":     func(r *registryv1.RegisterRequest) { r.Checks[0].Status = 9 },
		"checks[0].service_id": func(r *registryv1.RegisterRequest) { r.Checks[0].ServiceId = "other" },
		"checks[0].ttl":        func(r *registryv1.RegisterRequest) { r.Checks[0].Ttl = durationpb.New(time.Millisecond) },
		"checks[0].node":       func(r *registryv1.RegisterRequest) { r.Checks[0].Node = "n1" },
		"node.liveness_ttl":    func(r *registryv1.RegisterRequest) { r.Node.LivenessTtl = durationpb.New(48 * time.Hour) },
		"service.weights":      func(r *registryv1.RegisterRequest) { r.Service.Weights = &registryv1.Weights{Warning: 1} },
	} {
		t.Run(field, func(t *testing.T) {
			request := registration("n1", "api-1", "api", &registryv1.Check{Id: "http"})
			spoil(request)
			_, _, err := w.w.Register(w.view, request, "", time.Unix(1, 0))
			f, ok := fault.As(err)
			require.True(t, ok, "%v", err)
			require.Equal(t, field, f.Field())
		})
	}
}

func TestFailoverPolicyRoundTrip(t *testing.T) {
	w := newWorld(t)
	_, err := catalog.FailoverPolicy(w.store, "api")
	require.Equal(t, fault.NotFound, fault.CodeOf(err))
	policy := &registryv1.FailoverPolicy{Service: "api", Failover: []*registryv1.FailoverTarget{{Datacenter: "us-west", Targets: 3}}}
	cmd, err := w.w.SetFailoverPolicy(&registryv1.SetFailoverPolicyRequest{Policy: policy})
	require.NoError(t, err)
	w.apply(cmd)
	got, err := catalog.FailoverPolicy(w.store, "api")
	require.NoError(t, err)
	policy.ModifyIndex = 1
	require.Empty(t, cmp.Diff(policy, got, protocmp.Transform()))
	policy.Failover = append(policy.Failover, policy.GetFailover()[0])
	_, err = w.w.SetFailoverPolicy(&registryv1.SetFailoverPolicyRequest{Policy: policy})
	f, _ := fault.As(err)
	require.Equal(t, "policy.failover[1].datacenter", f.Field())
}

// A plan made before a registration must not take the node away and leave what was registered on
// it.
func TestANodeThatMovedIsDeregisteredAnew(t *testing.T) {
	w := newWorld(t)
	register := func(address string) {
		plan, err := w.w.RegisterNode(w.view, &registryv1.RegisterNodeRequest{
			Node:     &registryv1.Node{Name: "n1", Address: address},
			Services: []*registryv1.ServiceRegistration{{Service: &registryv1.Service{Id: "api-1", Name: "api"}}},
		}, "", time.Unix(1, 0))
		require.NoError(t, err)
		require.Empty(t, w.apply(plan.Command).GetFailedReason())
	}
	deregister := func() *registryv1.Command {
		plan, _, err := w.w.DeregisterNode(w.view, &registryv1.DeregisterNodeRequest{Node: "n1"})
		require.NoError(t, err)
		return plan.Command
	}
	early := deregister()
	register("10.0.0.1")
	require.Equal(t, catalog.ReasonCheckMoved, w.apply(early).GetFailedReason(), "it was not there")
	early = deregister()
	register("10.0.0.2")
	require.Equal(t, catalog.ReasonCheckMoved, w.apply(early).GetFailedReason(), "it was another one")
	require.EqualValues(t, 2, w.apply(deregister()).GetChanged())
	node, _ := w.view.Node("n1")
	require.Nil(t, node.Node)
	require.Empty(t, node.Instances)
}
