package catalog_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/catalog"
)

const (
	agent = "agent"
	ann   = "token:ann"
	bob   = "token:bob"
)

func (w *world) registerBy(by string, req *registryv1.RegisterRequest) error {
	plan, _, err := w.w.Register(w.view, req, by, time.Unix(1, 0))
	if err == nil {
		w.do(plan)
	}
	return err
}

func replacing(req *registryv1.RegisterRequest) *registryv1.RegisterRequest {
	req.Replace = true
	return req
}

func unnamed(req *registryv1.RegisterRequest) *registryv1.RegisterRequest {
	req.Service.Id, req.Service.Tags = "", nil
	return req
}

func at(port uint32, req *registryv1.RegisterRequest) *registryv1.RegisterRequest {
	req.Service.Port = port
	return req
}

func TestAnIDBelongsToWhoRegisteredIt(t *testing.T) {
	for name, c := range map[string]struct {
		by, again   string
		first, next *registryv1.RegisterRequest
		taken       bool
	}{
		"the same again":               {agent, agent, registration("n1", "api-1", "api"), at(81, registration("n1", "api-1", "api")), false},
		"another node":                 {agent, agent, registration("n1", "api-1", "api"), registration("n2", "api-1", "api"), true},
		"another service":              {ann, ann, registration("n1", "api-1", "api"), registration("n1", "api-1", "web"), true},
		"another owner":                {agent, ann, registration("n1", "api-1", "api"), registration("n1", "api-1", "api"), true},
		"an owner that is gone":        {bob, ann, registration("n1", "api-1", "api"), registration("n1", "api-1", "api"), false},
		"gone, and another node":       {bob, ann, registration("n1", "api-1", "api"), registration("n2", "api-1", "api"), true},
		"a row of an older version":    {"", ann, registration("n1", "api-1", "api"), registration("n1", "api-1", "api"), false},
		"older, and another node":      {"", ann, registration("n1", "api-1", "api"), registration("n2", "api-1", "api"), true},
		"an unknown one":               {agent, "", registration("n1", "api-1", "api"), at(81, registration("n1", "api-1", "api")), false},
		"no id, the same again":        {ann, ann, unnamed(registration("n1", "", "api")), unnamed(registration("n1", "", "api")), false},
		"no id, another port":          {ann, ann, unnamed(registration("n1", "", "api")), at(81, unnamed(registration("n1", "", "api"))), true},
		"no id, another node":          {ann, ann, unnamed(registration("n1", "", "api")), unnamed(registration("n2", "", "api")), true},
		"its id, another port":         {ann, ann, unnamed(registration("n1", "", "api")), at(81, registration("n1", "api", "api")), false},
		"another node, replacing":      {agent, ann, registration("n1", "api-1", "api"), replacing(registration("n2", "api-1", "api")), false},
		"another service, replacing":   {agent, ann, registration("n1", "api-1", "api"), replacing(registration("n1", "api-1", "web")), false},
		"another port, replacing":      {ann, ann, unnamed(registration("n1", "", "api")), replacing(at(81, unnamed(registration("n1", "", "api")))), false},
		"another owner, same contents": {ann, agent, registration("n1", "api-1", "api"), registration("n1", "api-1", "api"), true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.w = w.w.WithOwners(func(by string) bool { return by != bob })
			require.NoError(t, w.registerBy(c.by, c.first))
			before := w.store.All()
			err := w.registerBy(c.again, c.next)
			if !c.taken {
				require.NoError(t, err)
				instance, _ := w.view.Instance(cmpOr(c.next.GetService().GetId(), c.next.GetService().GetName()))
				require.Equal(t, c.next.GetService().GetPort(), instance.GetService().GetPort())
				require.Equal(t, c.next.GetNode().GetName(), instance.GetService().GetNode())
				require.Equal(t, cmpOr(c.again, c.by), instance.GetService().GetRegisteredBy())
				return
			}
			f, _ := fault.As(err)
			require.Equal(t, fault.AlreadyExists, fault.CodeOf(err), "%v", err)
			require.Equal(t, catalog.ReasonServiceIDTaken, f.Reason())
			require.Equal(t, "service.id", f.Field())
			require.ErrorContains(t, err, "of service api on node n1", "who has it")
			require.Empty(t, cmp.Diff(before, w.store.All(), protocmp.Transform()))
		})
	}
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// Nobody may say whose a registration is.
func TestOwnersAreNotAsked(t *testing.T) {
	w := newWorld(t)
	req := registration("n1", "api-1", "api")
	req.Service.RegisteredBy = agent
	require.NoError(t, w.registerBy(ann, req))
	instance, _ := w.view.Instance("api-1")
	require.Equal(t, ann, instance.GetService().GetRegisteredBy())
}

// Two who register one id at the same time are not both told that it is theirs.
func TestOfTwoRegistrationsTheSecondFindsTheFirst(t *testing.T) {
	w := newWorld(t)
	first, _, err := w.w.Register(w.view, registration("n1", "api-1", "api"), ann, time.Unix(1, 0))
	require.NoError(t, err)
	second, _, err := w.w.Register(w.view, registration("n2", "api-1", "api"), bob, time.Unix(1, 0))
	require.NoError(t, err)
	w.do(first)
	require.Equal(t, catalog.ReasonCheckMoved, w.apply(second.Command).GetFailedReason())
}

func TestWhatARegistrationDoesNotNameStays(t *testing.T) {
	full := &registryv1.RegisterNodeRequest{Node: &registryv1.Node{
		Name: "n1", Address: "192.0.2.1", Meta: map[string]string{"rack": "a1"}, LivenessTtl: durationpb.New(time.Minute),
	}}
	for name, c := range map[string]struct {
		change  func(*registryv1.RegisterRequest)
		address string
		meta    map[string]string
		ttl     time.Duration
	}{
		"nothing named": {func(*registryv1.RegisterRequest) {}, "192.0.2.1", full.GetNode().GetMeta(), time.Minute},
		"address named": {func(r *registryv1.RegisterRequest) { r.Node.Address = "192.0.2.9" }, "192.0.2.9", full.GetNode().GetMeta(), time.Minute},
		"meta named":    {func(r *registryv1.RegisterRequest) { r.Node.Meta = map[string]string{"os": "x"} }, "192.0.2.1", map[string]string{"os": "x"}, time.Minute},
		"TTL named":     {func(r *registryv1.RegisterRequest) { r.Node.LivenessTtl = durationpb.New(time.Hour) }, "192.0.2.1", full.GetNode().GetMeta(), time.Hour},
		"TTL ended":     {func(r *registryv1.RegisterRequest) { r.Node.LivenessTtl = durationpb.New(0) }, "192.0.2.1", full.GetNode().GetMeta(), 0},
		"replaced":      {func(r *registryv1.RegisterRequest) { r.Node.Address, r.Replace = "192.0.2.9", true }, "192.0.2.9", nil, 0},
	} {
		for kind, service := range map[string]*registryv1.Service{"node": nil, "service": {Id: "api-1", Name: "api", Address: "192.0.2.5"}} {
			t.Run(name+", "+kind, func(t *testing.T) {
				w := newWorld(t)
				plan, err := w.w.RegisterNode(w.view, full, agent, time.Unix(1, 0))
				require.NoError(t, err)
				w.do(plan)
				req := &registryv1.RegisterRequest{Node: &registryv1.Node{Name: "n1"}, Service: proto.CloneOf(service)}
				c.change(req)
				require.NoError(t, w.registerBy(ann, req))
				got, _ := w.view.Node("n1")
				require.Equal(t, c.address, got.Node.GetAddress())
				require.Equal(t, c.meta, got.Node.GetMeta())
				require.Equal(t, c.ttl, got.Node.GetLivenessTtl().AsDuration())
				require.Equal(t, c.ttl > 0, len(got.Checks) == 1, "the liveness check goes with the TTL")
			})
		}
	}
}

func TestANewNodeNeedsAnAddress(t *testing.T) {
	w := newWorld(t)
	err := w.registerBy(ann, &registryv1.RegisterRequest{Node: &registryv1.Node{Name: "n1"}})
	f, _ := fault.As(err)
	require.Equal(t, "node.address", f.Field())
	require.NoError(t, w.registerBy(ann, &registryv1.RegisterRequest{
		Node: &registryv1.Node{Name: "n1"}, Service: &registryv1.Service{Name: "api", Address: "192.0.2.5"},
	}), "that of the instance is as good")
	require.Equal(t, "api@192.0.2.5:0 passing", w.query("api", false))
}

// A registration that does not say that the node lives is no sign of its life.
func TestOnlyHeartbeatsReviveANode(t *testing.T) {
	w := newWorld(t)
	node := &registryv1.Node{Name: "n1", Address: "192.0.2.1", LivenessTtl: durationpb.New(time.Minute)}
	require.NoError(t, w.registerBy(agent, &registryv1.RegisterRequest{Node: node}))
	dead, err := w.w.Expire(w.view, "heartbeat:n1", time.Unix(100, 0))
	require.NoError(t, err)
	w.apply(dead)
	reap, err := w.w.Expire(w.view, "reap:n1", time.Unix(200, 0))
	require.NoError(t, err)
	require.NoError(t, w.registerBy(ann, &registryv1.RegisterRequest{
		Node: &registryv1.Node{Name: "n1"}, Service: &registryv1.Service{Name: "api", Port: 80},
	}))
	require.Equal(t, "api@192.0.2.1:80 critical", w.query("api", false))
	require.Equal(t, catalog.ReasonCheckMoved, w.apply(reap).GetFailedReason(), "what was registered meanwhile is not left without its node")
	require.NoError(t, w.registerBy(agent, &registryv1.RegisterRequest{Node: node}))
	require.Equal(t, "api@192.0.2.1:80 passing", w.query("api", false))
}

func TestWhoWatchesIsSaid(t *testing.T) {
	w := newWorld(t)
	unchecked := func() (fromAnswer bool) {
		instances, _ := w.view.Query("api", catalog.Selection{})
		encoded, _ := w.view.Encoded("api", false)
		decoded := &registryv1.QueryServiceResponse{}
		require.NoError(t, proto.Unmarshal(encoded, decoded))
		require.Equal(t, instances[0].GetUnchecked(), decoded.GetInstances()[0].GetUnchecked())
		services, _ := w.view.Services(catalog.Selection{})
		require.Equal(t, instances[0].GetUnchecked(), services[0].GetUnchecked() == 1)
		return instances[0].GetUnchecked()
	}
	require.NoError(t, w.registerBy(ann, registration("n1", "api-1", "api")))
	require.True(t, unchecked())
	require.NoError(t, w.registerBy(ann, registration("n1", "api-1", "api", &registryv1.Check{Id: "ttl", Ttl: durationpb.New(time.Minute)})))
	require.False(t, unchecked())
	plan, _, err := w.w.Register(w.view, registration("n1", "api-1", "api"), ann, time.Unix(1, 0))
	require.NoError(t, err)
	require.Equal(t, []string{"ttl"}, plan.RemovedChecks, "what a registration removes is said")
	w.do(plan)
	require.True(t, unchecked())
	lives := registration("n1", "api-1", "api")
	lives.Node.LivenessTtl = durationpb.New(time.Minute)
	require.NoError(t, w.registerBy(ann, lives))
	require.False(t, unchecked())
}

func TestEmptyNodesThatNobodyRegisteredAreReaped(t *testing.T) {
	watched := func(t *testing.T, empty time.Duration) (*world, keeper) {
		w, due := newWorld(t), keeper{}
		w.view = catalog.NewView("dc1", catalog.WithDeadlines(due, catalog.Times{Dead: time.Hour, Empty: empty}, func() time.Time { return time.Unix(10, 0) }))
		require.NoError(t, w.view.Load(w.store))
		return w, due
	}
	deregister := func(w *world, id string) {
		plan, err := w.w.Deregister(w.view, &registryv1.DeregisterRequest{ServiceId: id})
		require.NoError(w.t, err)
		w.do(plan)
	}
	const key = "empty:n1"

	t.Run("its last instance went", func(t *testing.T) {
		w, due := watched(t, time.Hour)
		require.NoError(t, w.registerBy(ann, registration("n1", "api-1", "api")))
		require.NotContains(t, due, key)
		deregister(w, "api-1")
		require.Equal(t, time.Hour, due[key])
		reap, err := w.w.Expire(w.view, key, time.Unix(100, 0))
		require.NoError(t, err)
		require.NoError(t, w.registerBy(ann, registration("n1", "api-1", "api")))
		require.NotContains(t, due, key)
		require.Equal(t, catalog.ReasonCheckMoved, w.apply(reap).GetFailedReason(), "an instance came meanwhile")
		overtaken, err := w.w.Expire(w.view, key, time.Unix(100, 0))
		require.NoError(t, err)
		require.Nil(t, overtaken)
		deregister(w, "api-1")
		reap, err = w.w.Expire(w.view, key, time.Unix(100, 0))
		require.NoError(t, err)
		w.apply(reap)
		require.Empty(t, w.store.All()[0].GetValue())
		node, _ := w.view.Node("n1")
		require.Nil(t, node.Node)
		require.NotContains(t, due, key)
	})
	for name, keep := range map[string]func(*registryv1.RegisterRequest) *registryv1.RegisterRequest{
		"registered for itself": func(r *registryv1.RegisterRequest) *registryv1.RegisterRequest {
			return &registryv1.RegisterRequest{Node: r.GetNode()}
		},
		"with meta": func(r *registryv1.RegisterRequest) *registryv1.RegisterRequest {
			r.Node.Meta = map[string]string{"rack": "a1"}
			return r
		},
		"with heartbeats": func(r *registryv1.RegisterRequest) *registryv1.RegisterRequest {
			r.Node.LivenessTtl = durationpb.New(time.Minute)
			return r
		},
		"with a check of its own": func(r *registryv1.RegisterRequest) *registryv1.RegisterRequest {
			return &registryv1.RegisterRequest{Node: r.GetNode(), Checks: []*registryv1.Check{{Id: "disk"}}}
		},
	} {
		t.Run("not one "+name, func(t *testing.T) {
			w, due := watched(t, time.Hour)
			require.NoError(t, w.registerBy(ann, registration("n1", "api-1", "api")))
			require.NoError(t, w.registerBy(ann, keep(registration("n1", "api-1", "api"))))
			require.NoError(t, w.registerBy(ann, registration("n1", "api-1", "api")), "which says nothing new")
			deregister(w, "api-1")
			require.NotContains(t, due, key)
			cmd, err := w.w.Expire(w.view, key, time.Unix(100, 0))
			require.NoError(t, err)
			require.Nil(t, cmd)
		})
	}
	t.Run("never when it is set so", func(t *testing.T) {
		w, due := watched(t, 0)
		require.NoError(t, w.registerBy(ann, registration("n1", "api-1", "api")))
		deregister(w, "api-1")
		require.NotContains(t, due, key)
	})
}
