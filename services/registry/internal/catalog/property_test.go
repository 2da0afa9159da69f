package catalog_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/catalog"
	"konsul.dev/services/registry/internal/record"
)

// A view that followed every change and one loaded at the end must answer alike, whatever happened;
// and whoever waits for a service is woken exactly when its answer changed.
func TestFollowingEqualsLoading(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		kept := keeper{}
		w.view = catalog.NewView("dc1", catalog.WithDeadlines(kept, catalog.Times{Dead: time.Hour, Empty: 2 * time.Hour}, func() time.Time { return time.Unix(10, 0) }))
		require.NoError(t, w.view.Load(w.store))
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			before := map[string][]byte{}
			for _, name := range serviceNames {
				before[name], _ = w.view.Encoded(name, false)
			}
			w.changed = nil
			step(t, w)
			for _, name := range serviceNames {
				after, _ := w.view.Encoded(name, false)
				if !cmp.Equal(before[name], after) {
					require.Contains(t, w.changed, name)
				}
			}
		}
		due := keeper{}
		fresh := catalog.NewView("dc1", catalog.WithDeadlines(due, catalog.Times{Dead: time.Hour, Empty: 2 * time.Hour}, func() time.Time { return time.Unix(10, 0) }))
		require.NoError(t, fresh.Load(w.store))
		sameAnswers(t, w.view, fresh)
		require.Equal(t, map[string]time.Duration(due), map[string]time.Duration(kept))
		rowsAreReachable(t, w)
	})
}

var serviceNames = []string{"api", "web"}

// step does something at random.
func step(t *rapid.T, w *world) {
	id := rapid.SampledFrom([]string{"i1", "i2", "i3", "i4"}).Draw(t, "id")
	node := rapid.SampledFrom([]string{"n1", "n2"}).Draw(t, "node")
	var plan *catalog.Plan
	var err error
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0:
		plan, err = w.w.Deregister(w.view, &registryv1.DeregisterRequest{ServiceId: id})
	case 1, 2:
		plan, err = w.w.UpdateChecks(w.view, &registryv1.UpdateChecksRequest{Updates: []*registryv1.CheckUpdate{{
			ServiceId: id, CheckId: "c", Status: rapid.SampledFrom([]registryv1.HealthStatus{passing, warning, critical}).Draw(t, "status"),
		}}}, time.Unix(3, 0))
	case 3:
		plan, _, err = w.w.DeregisterNode(w.view, &registryv1.DeregisterNodeRequest{Node: node})
	case 4:
		req := &registryv1.SetMaintenanceRequest{ServiceId: id, Enabled: rapid.Bool().Draw(t, "on"), Reason: "why"}
		if rapid.Bool().Draw(t, "of node") {
			req.ServiceId, req.Node = "", node
		}
		plan, err = w.w.SetMaintenance(w.view, req, time.Unix(4, 0))
	case 5:
		key := rapid.SampledFrom([]string{"report:" + id + "/c", "report:/" + node + "/c", "heartbeat:" + node, "reap:" + node, "empty:" + node}).Draw(t, "deadline")
		cmd, err := w.w.Expire(w.view, key, time.Unix(5, 0))
		require.NoError(t, err)
		if cmd != nil {
			require.Empty(t, w.apply(cmd).GetFailedReason())
		}
		return
	case 6:
		plan, _, err = w.w.Heartbeat(w.view, &registryv1.HeartbeatRequest{Nodes: []string{node}}, time.Unix(6, 0))
	default:
		req := anyRegistration(t, node, id)
		asked := proto.CloneOf(req)
		by := rapid.SampledFrom([]string{"", "agent", "token:a"}).Draw(t, "by")
		if len(req.GetServices()) == 1 && rapid.Bool().Draw(t, "one") {
			one := &registryv1.RegisterRequest{Node: req.GetNode(), Service: req.GetServices()[0].GetService(), Checks: req.GetServices()[0].GetChecks(), Replace: req.GetReplace()}
			plan, _, err = w.w.Register(w.view, one, by, time.Unix(7, 0))
			break
		}
		plan, err = w.w.RegisterNode(w.view, req, by, time.Unix(7, 0))
		require.Empty(t, cmp.Diff(asked, req, protocmp.Transform()), "another leader may be asked for it")
	}
	if err == nil {
		w.do(plan)
	}
}

func anyRegistration(t *rapid.T, node, id string) *registryv1.RegisterNodeRequest {
	checks := func() []*registryv1.Check {
		c := &registryv1.Check{Id: "c", Status: registryv1.HealthStatus(rapid.IntRange(0, 3).Draw(t, "status"))}
		switch rapid.IntRange(0, 2).Draw(t, "checked") {
		case 0:
			return nil
		case 1:
			c.Ttl = durationpb.New(time.Minute)
		}
		return []*registryv1.Check{c}
	}
	r := &registryv1.RegisterNodeRequest{Replace: rapid.Bool().Draw(t, "replace"), Node: &registryv1.Node{Name: node, Address: rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2"}).Draw(t, "address")}}
	if rapid.Bool().Draw(t, "lives") {
		r.Node.LivenessTtl = durationpb.New(30 * time.Second)
	}
	if rapid.Bool().Draw(t, "node checks") {
		r.Checks = checks()
	}
	add := func(id string) {
		s := registration(node, id, rapid.SampledFrom(serviceNames).Draw(t, "name")).GetService()
		if rapid.Bool().Draw(t, "own address") {
			s.Address = "own"
		}
		if rapid.Bool().Draw(t, "defaults") {
			s.Id, s.Node, s.CreateIndex = "", "", 3
		}
		r.Services = append(r.Services, &registryv1.ServiceRegistration{Service: s, Checks: checks()})
	}
	if rapid.Bool().Draw(t, "services") {
		add(id)
	}
	if rapid.Bool().Draw(t, "another") {
		add("i5")
	}
	return r
}

func sameAnswers(t require.TestingT, a, b *catalog.View) {
	equal := func(x, y any) { require.Empty(t, cmp.Diff(x, y, protocmp.Transform(), cmpopts.EquateEmpty())) }
	for _, name := range serviceNames {
		x, _ := a.Query(name, catalog.Selection{})
		y, _ := b.Query(name, catalog.Selection{})
		equal(x, y)
		for _, passingOnly := range []bool{false, true} {
			x, _ := a.Query(name, catalog.Selection{PassingOnly: passingOnly})
			encoded, _ := b.Encoded(name, passingOnly)
			decoded := &registryv1.QueryServiceResponse{}
			require.NoError(t, proto.Unmarshal(encoded, decoded))
			equal(x, decoded.GetInstances())
		}
	}
	sa, _ := a.Services(catalog.Selection{})
	sb, _ := b.Services(catalog.Selection{})
	equal(sa, sb)
	na, _ := a.Nodes(catalog.NodeSelection{})
	nb, _ := b.Nodes(catalog.NodeSelection{})
	equal(na, nb)
	for _, n := range na {
		x, _ := a.Node(n.GetName())
		y, _ := b.Node(n.GetName())
		equal(x, y)
	}
	ca, _ := a.Checks(catalog.CheckSelection{})
	cb, _ := b.Checks(catalog.CheckSelection{})
	equal(ca, cb)
}

// rowsAreReachable says that no row is left over that no answer shows.
func rowsAreReachable(t require.TestingT, w *world) {
	shown := map[string]bool{}
	for _, name := range serviceNames {
		instances, _ := w.view.Query(name, catalog.Selection{})
		for _, i := range instances {
			shown["service "+i.GetService().GetId()] = true
			require.NotZero(t, i.GetNode().GetModifyIndex(), "an instance outlived its node")
		}
	}
	checks, _ := w.view.Checks(catalog.CheckSelection{})
	shownChecks := 0
	for _, c := range checks {
		require.NotEmpty(t, c.GetNode(), "a check outlived what it is about: %v", c)
		shownChecks++
	}
	stored := 0
	require.NoError(t, w.store.Scan(registryv1.Table_TABLE_SERVICE, record.ScanOptions{}, func(r *registryv1.Record) bool {
		require.True(t, shown["service "+r.GetKey()])
		return true
	}))
	require.NoError(t, w.store.Scan(registryv1.Table_TABLE_CHECK, record.ScanOptions{}, func(*registryv1.Record) bool {
		stored++
		return true
	}))
	require.Equal(t, stored, shownChecks)
}

// keeper is a Deadlines that only remembers.
type keeper map[string]time.Duration

func (k keeper) Reset(deadlines map[string]time.Duration) {
	clear(k)
	for key, ttl := range deadlines {
		k[key] = ttl
	}
}
func (k keeper) Set(key string, ttl time.Duration) { k[key] = ttl }
func (k keeper) Remove(key string)                 { delete(k, key) }
